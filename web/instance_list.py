"""Which instances the list shows, and in which order: both are kept in the URL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from control_plane.instances.lifecycle import Phase
from control_plane.instances.schemas import InstanceView

#: Columns that can be sorted by.
COLUMNS = ("name", "phase", "model", "hardware", "price_per_hour", "created_at")
_DEFAULT_COLUMN = "created_at"

#: Choices of the state filter: value in the URL → words, and the phases it admits. A newer version may have phases that
#: this one does not know: None admits them, too.
_GROUPS: dict[str, tuple[str, frozenset[str] | None]] = {
    "current": ("all but terminated", None),
    "running": ("running", frozenset({Phase.RUNNING})),
    "moving": (
        "coming or going",
        frozenset({
            Phase.REQUESTED, Phase.DOWNLOADING, Phase.PROVISIONING, Phase.STARTING, Phase.STOPPING, Phase.TERMINATING,
        }),
    ),
    "failed": ("failed", frozenset({Phase.FAILED})),
    "stopped": ("stopped", frozenset({Phase.STOPPED})),
    "all": ("all", None),
}  # fmt: skip
STATES = [(value, words) for value, (words, _) in _GROUPS.items()]
_DEFAULT_STATE = "current"


@dataclass(frozen=True)
class Listing:
    """A search, a filter and an order. ``key`` is one of :data:`COLUMNS`."""

    q: str = ""
    state: str = _DEFAULT_STATE
    key: str = _DEFAULT_COLUMN
    descending: bool = True

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Listing:
        """From the parameters of a URL; what makes no sense in it counts as not given."""
        key = query.get("sort", "")
        if key not in COLUMNS:
            return cls(query.get("q", "").strip(), _known_state(query.get("state", "")))
        return cls(query.get("q", "").strip(), _known_state(query.get("state", "")), key, "desc" in query)

    @property
    def includes_terminated(self) -> bool:
        """Whether those that are gone for good are wanted."""
        return self.state == "all"

    def of_these(self, instances: Iterable[InstanceView]) -> list[InstanceView]:
        """The instances that are wanted, in the order that is wanted."""
        word, phases = self.q.lower(), _GROUPS[self.state][1]
        wanted = [
            instance
            for instance in instances
            if (phases is None or instance.phase in phases)
            and (instance.phase != Phase.TERMINATED or self.includes_terminated)
            and any(word in text.lower() for text in (instance.name, instance.model, instance.slug))
        ]
        # Equal values stay newest first, whichever way the column is sorted.
        wanted.sort(key=lambda instance: instance.created_at, reverse=True)
        return sorted(wanted, key=self._value, reverse=self.descending)

    def _value(self, instance: InstanceView) -> tuple[bool, object]:
        value = getattr(instance, self.key)
        return value is not None, value.lower() if isinstance(value, str) else value

    def url(self, path: str) -> str:
        """``path`` with this listing in its query."""
        given = {"q": self.q, "state": self.state, "sort": self.key, "desc": "1" if self.descending else ""}
        return f"{path}?{urlencode({name: value for name, value in given.items() if value})}"

    def link(self, key: str) -> str:
        """The list sorted by ``key``; the other way round where it is so already."""
        descending = not self.descending if key == self.key else False
        return Listing(self.q, self.state, key, descending).url("/instances")


def _known_state(state: str) -> str:
    return state if state in _GROUPS else _DEFAULT_STATE
