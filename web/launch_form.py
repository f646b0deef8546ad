"""What stands on the launch page: the search, the chosen model with its check, and everything typed so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

from control_plane.catalog.catalog import get_catalog
from control_plane.catalog.entry import CatalogEntry
from control_plane.catalog.schemas import FitView, ModelSearch, Resolution, ResolveRequest
from control_plane.catalog.service import resolve_model
from control_plane.context import Context
from control_plane.errors import SlipwayError
from control_plane.instances.schemas import LaunchRequest
from web.forms import FormInvalid, parsed

#: Choices of the size filter: (value in the URL, words).
SIZES = [
    ("1000000000", "up to 1 B"),
    ("4000000000", "up to 4 B"),
    ("9000000000", "up to 9 B"),
    ("35000000000", "up to 35 B"),
    ("80000000000", "up to 80 B"),
]
_FILTERS = ("q", "family", "max_parameters", "license", "gated")
_TYPED = ("model", "revision", "name", "hardware", "max_model_len", "max_num_seqs")


@dataclass(frozen=True)
class Search:
    """The search box and the filters, as in the URL. A value that no list offers is shown as found: nothing."""

    values: Mapping[str, str]

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Search:
        """From the parameters of a URL."""
        return cls({name: query.get(name, "").strip() for name in _FILTERS})

    def found(self) -> list[CatalogEntry]:
        """The catalog's answer, best first.

        :raises FormInvalid: a filter that makes no sense.
        """
        return get_catalog().search(parsed(ModelSearch, dict(self.values)).query())

    def url(self, **more: str) -> str:
        """The address of this search, and of a model chosen in it."""
        given = {name: value for name, value in {**self.values, **more}.items() if value}
        return "/launch" + (f"?{urlencode(given)}" if given else "")


@dataclass(frozen=True)
class Typed:
    """The fields of the launch form as typed, valid or not: they are shown again as they are."""

    values: Mapping[str, str]

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Typed:
        """From the parameters of a URL or the fields of a form."""
        return cls({name: given.get(name, "").strip() for name in _TYPED})

    def __getitem__(self, name: str) -> str:
        return self.values[name]

    def launch_request(self) -> LaunchRequest:
        """What the service is asked.

        :raises FormInvalid: a field that will not do.
        """
        engine = {name: self[name] for name in ("max_model_len", "max_num_seqs") if self[name]}
        rest = {name: self[name] for name in ("model", "revision", "name", "hardware")}
        return parsed(LaunchRequest, {**rest, "engine": engine})


@dataclass(frozen=True)
class Choice:
    """The chosen model: its facts and fits, or the error that kept us from them."""

    typed: Typed
    resolution: Resolution | None = None
    entry: CatalogEntry | None = None
    problem: SlipwayError | None = None
    #: Field → what is wrong with it.
    messages: Mapping[str, str] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """The id, as the hub spells it where it was found."""
        return self.resolution.model if self.resolution else self.typed["model"]

    @property
    def hardware(self) -> FitView | None:
        """What is marked: the offer that was picked, else the first that would do."""
        usable = [fit for fit in self.resolution.fits if fit.fits and fit.available] if self.resolution else []
        picked = [fit for fit in usable if fit.hardware == self.typed["hardware"]]
        return next(iter(picked or usable), None)

    @property
    def why_not(self) -> str | None:
        """Why there is no launching it; None when there is."""
        if self.resolution is None:
            return "It cannot be launched before it has been looked up."
        if not self.resolution.supported:
            return self.resolution.why_not
        if self.hardware is None:
            return "It fits on none of the hardware that is available now."
        return None


def check(context: Context, typed: Typed, *, problem: SlipwayError | None = None) -> Choice:
    """Look up what is typed. Asks the hub: slow, and in the worst case a timeout with its reason.

    :param problem: what a launch of it met already.
    """
    messages = dict(problem.messages) if isinstance(problem, FormInvalid) else {}
    problem = None if messages else problem
    entry = get_catalog().get(typed["model"])
    asked = {name: typed[name] for name in ("model", "revision", "max_model_len") if name not in messages}
    try:
        resolution = resolve_model(context, parsed(ResolveRequest, asked))
    except FormInvalid as error:
        if "model" in error.messages:
            return Choice(typed, entry=entry, problem=problem, messages=messages | error.messages)
        return check(context, typed, problem=FormInvalid(messages | error.messages))
    except SlipwayError as error:
        return Choice(typed, entry=entry, problem=problem or error, messages=messages)
    return Choice(typed, resolution, get_catalog().get(resolution.model), problem, messages)
