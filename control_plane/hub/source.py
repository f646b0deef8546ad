"""Where facts are read from: a model on the hub, or a folder. Both list files and give out small pieces of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from control_plane.hub.errors import InvalidRepository


@dataclass(frozen=True)
class RepositoryFile:
    """A file of one commit. ``sha256`` is known for large (LFS) files; ``etag`` is it, or else the git blob id."""

    path: str
    size: int
    etag: str
    sha256: str | None = None

    @property
    def is_lfs(self) -> bool:
        """Whether the hub keeps the file in large-file storage, behind a redirect."""
        return self.sha256 is not None


@dataclass(frozen=True)
class ModelCard:
    """What the model's page says, beside its files. ``elements`` counts stored numbers by safetensors dtype."""

    license: str | None = None
    gated: bool = False
    elements: dict[str, int] | None = None


class ModelSource(Protocol):
    """One model at one commit."""

    @property
    def sha(self) -> str:
        """The commit."""
        ...

    @property
    def files(self) -> tuple[RepositoryFile, ...]:
        """All files, in the order of their paths."""
        ...

    @property
    def card(self) -> ModelCard:
        """What the page says."""
        ...

    def read(self, path: str, *, limit: int, start: int = 0, length: int | None = None) -> bytes:
        """A file of :attr:`files`, or ``length`` bytes of it from ``start`` on.

        :raises InvalidRepository: more than ``limit`` bytes.
        """
        ...


def read_json(source: ModelSource, path: str, *, limit: int) -> dict[str, Any]:
    """A JSON object from ``source``.

    :raises InvalidRepository: too large, not JSON as the standard has it, or not an object.
    """
    return parse_object(source.read(path, limit=limit), path)


def parse_object(content: bytes, path: str) -> dict[str, Any]:
    """Strict JSON: UTF-8, no NaN or Infinity, an object at the top.

    :raises InvalidRepository: anything else; ``path`` names the file in the message.
    """

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    try:
        value = json.loads(content.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise InvalidRepository(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidRepository(f"{path} holds a JSON {type(value).__name__}, not an object.")
    return value
