"""Which architectures the engine serves, and why it refuses others: architectures.yaml, read once.

The control plane does not import the engine, so what it knows of it is this file; a test holds both together.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict

_FILE = Path(__file__).with_name("architectures.yaml")
_SOMETHING = "Pick a model of an architecture that docs/models.md lists, such as Qwen/Qwen3-8B."


class Support(NamedTuple):
    """Whether a model can be launched; ``why_not`` and ``note`` are sentences for a person."""

    supported: bool
    why_not: str | None = None
    note: str | None = None


class Refused(BaseModel):
    """A kind of model that is not served; ``patterns`` as in the shell."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    reason: str
    instead: str
    patterns: tuple[str, ...]


class Architectures(BaseModel):
    """What architectures.yaml says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    native: frozenset[str]
    fallback: frozenset[str]
    rotary_scalings: frozenset[str]
    refused: tuple[Refused, ...]

    def support_of(self, architecture: str | None) -> Support:
        """The verdict by an architecture's name alone."""
        if architecture is None:
            return Support(False, f"Its config.json names no architecture. {_SOMETHING}")
        if architecture in self.native:
            return Support(True)
        if architecture in self.fallback:
            return Support(True, note=f"{architecture} is served through Transformers, slower than a native one.")
        for group in self.refused:
            if any(fnmatchcase(architecture, pattern) for pattern in group.patterns):
                return Support(False, f"{architecture} is {group.kind}, {group.reason}. {group.instead}")
        return Support(False, f"{architecture} is not an architecture that Slipway knows. {_SOMETHING}")


@lru_cache
def get_architectures() -> Architectures:
    """The file that comes with Slipway."""
    return Architectures.model_validate(yaml.safe_load(_FILE.read_text(encoding="utf-8")))
