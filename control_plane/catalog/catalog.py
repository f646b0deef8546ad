"""The catalog: models.yaml, read once, checked, and searched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from control_plane.catalog.entry import CatalogEntry

#: The one in C takes a tenth of the time, where PyYAML was built with it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Query:
    """What to look for; fields that are None do not restrict."""

    q: str = ""
    architecture: str | None = None
    family: str | None = None
    kind: str | None = None
    max_parameters: int | None = None
    license: str | None = None
    gated: bool | None = None

    def admits(self, entry: CatalogEntry) -> bool:
        """Whether ``entry`` passes every filter; ``q`` is ranked, not filtered, here."""
        return (
            _same(self.architecture, entry.architecture)
            and _same(self.family, entry.family)
            and _same(self.kind, entry.kind)
            and _same(self.license, entry.license)
            and self.gated in {None, entry.gated}
            and (self.max_parameters is None or entry.parameters <= self.max_parameters)
        )


class Catalog:
    """All entries, in the order of models.yaml."""

    def __init__(self, entries: Iterable[CatalogEntry]) -> None:
        self.entries = tuple(entries)
        self._by_id = {entry.id.lower(): entry for entry in self.entries}
        self._by_variant = {variant.id.lower(): entry for entry in self.entries for variant in entry.quantized}

    def get(self, model: str) -> CatalogEntry | None:
        """The entry of this id, letter case aside."""
        return self._by_id.get(model.lower())

    def unquantised(self, model: str) -> CatalogEntry | None:
        """The entry that a compressed repository was made of, as far as the catalog knows."""
        return self._by_variant.get(model.lower())

    def search(self, query: Query) -> list[CatalogEntry]:
        """Entries that match, best first.

        Every word of ``q`` must occur. Ranked by where it occurs (the whole id or name, their beginning, elsewhere in
        them, in family, architecture or tags, in the description), then models served today before others, then the
        catalog's order.
        """
        text = " ".join(query.q.lower().split())
        found = []
        for position, entry in enumerate(self.entries):
            rank = _rank(entry, text)
            if rank is not None and query.admits(entry):
                found.append((rank, not entry.support.supported, position, entry))
        return [entry for *_, entry in sorted(found, key=lambda hit: hit[:3])]

    def families(self) -> list[str]:
        """Every family there is, sorted."""
        return sorted({entry.family for entry in self.entries})

    def licenses(self) -> list[str]:
        """Every licence there is, sorted."""
        return sorted({entry.license for entry in self.entries})


def _rank(entry: CatalogEntry, text: str) -> int | None:
    """How well ``entry`` matches ``text``: 0 best, None not at all."""
    own = (entry.id.lower(), entry.name.lower(), entry.id.lower().rpartition("/")[2])
    if text in own:
        return 0
    if any(name.startswith(text) for name in own):
        return 1
    words = text.split()
    names = " ".join(own)
    for rank, haystack in enumerate((names, entry.words, f"{entry.words} {entry.description.lower()}"), start=2):
        if all(word in haystack for word in words):
            return rank
    return None


def _same(wanted: str | None, value: str) -> bool:
    return wanted is None or wanted.lower() == value.lower()


class _Document(BaseModel):
    """The file as a whole."""

    model_config = ConfigDict(extra="forbid")

    models: list[CatalogEntry] = Field(min_length=1)


def read_catalog(path: Path) -> Catalog:
    """Read and check a catalog file.

    :raises ValueError: an entry is malformed, contradicts itself, or is there twice; the message says where.
    """
    try:
        entries = _Document.model_validate(yaml.load(path.read_bytes(), _LOADER)).models  # noqa: S506 - a safe one
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path.name}: {place}: {first['msg']} ({str(first['input'])[:60]!r})") from None
    seen: set[str] = set()
    for entry in entries:
        if entry.id.lower() in seen:
            raise ValueError(f"{path.name}: {entry.id} is there twice")
        seen.add(entry.id.lower())
    return Catalog(entries)


@lru_cache
def get_catalog() -> Catalog:
    """The catalog that comes with Slipway."""
    return read_catalog(Path(__file__).with_name("models.yaml"))
