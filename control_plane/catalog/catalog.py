"""The catalog: models.yaml, read once and checked against models.schema.json, and searched."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from control_plane.catalog.architectures import Support, support_of

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class CatalogEntry:
    """One model. ``parameters`` counts all, experts included; ``context`` is in tokens; ``license`` as on the hub."""

    id: str
    name: str
    family: str
    architecture: str
    parameters: int
    context: int
    license: str
    description: str
    gated: bool = False
    quantization: str | None = None
    tags: tuple[str, ...] = ()

    @cached_property
    def support(self) -> Support:
        """Whether the engine serves it today."""
        return support_of(self.architecture, self.quantization)

    @cached_property
    def _words(self) -> str:
        parts = (self.id, self.name, self.family, self.architecture, self.quantization or "", *self.tags)
        return " ".join(parts).lower()


@dataclass(frozen=True)
class Query:
    """What to look for; fields that are None do not restrict. ``quantization`` "none" means unquantised."""

    q: str = ""
    architecture: str | None = None
    family: str | None = None
    max_parameters: int | None = None
    quantization: str | None = None
    license: str | None = None
    gated: bool | None = None

    def admits(self, entry: CatalogEntry) -> bool:
        """Whether ``entry`` passes every filter; ``q`` is ranked, not filtered, here."""
        return (
            _same(self.architecture, entry.architecture)
            and _same(self.family, entry.family)
            and _same(self.quantization, entry.quantization or "none")
            and _same(self.license, entry.license)
            and self.gated in {None, entry.gated}
            and (self.max_parameters is None or entry.parameters <= self.max_parameters)
        )


class Catalog:
    """All entries, in the order of models.yaml."""

    def __init__(self, entries: Iterable[CatalogEntry]) -> None:
        self.entries = tuple(entries)
        self._by_id = {entry.id.lower(): entry for entry in self.entries}

    def get(self, model: str) -> CatalogEntry | None:
        """The entry of this id, letter case aside."""
        return self._by_id.get(model.lower())

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
    for rank, haystack in enumerate((names, entry._words, f"{entry._words} {entry.description.lower()}"), start=2):
        if all(word in haystack for word in words):
            return rank
    return None


def _same(wanted: str | None, value: str) -> bool:
    return wanted is None or wanted.lower() == value.lower()


def read_catalog(path: Path) -> Catalog:
    """Read and check a catalog file.

    :raises ValueError: it does not follow the schema, or has an id twice; the message names the entry.
    """
    document: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    schema = json.loads((_HERE / "models.schema.json").read_text(encoding="utf-8"))
    for error in Draft202012Validator(schema).iter_errors(document):
        raise ValueError(f"{path.name}: {error.json_path}: {error.message}")
    entries = [CatalogEntry(**{**fields, "tags": tuple(fields.get("tags", ()))}) for fields in document["models"]]
    seen: set[str] = set()
    for entry in entries:
        if entry.id.lower() in seen:
            raise ValueError(f"{path.name}: {entry.id} is there twice")
        seen.add(entry.id.lower())
    return Catalog(entries)


@lru_cache
def get_catalog() -> Catalog:
    """The catalog that comes with Slipway."""
    return read_catalog(_HERE / "models.yaml")
