"""Lists: ``{"items": [...], "next_cursor": ...}``, cursors over time-ordered ids."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar
from uuid import UUID

from pydantic import BaseModel


class Identified(Protocol):
    """Anything with an id."""

    id: UUID


T = TypeVar("T")
Item = TypeVar("Item", bound=Identified)


class Page(BaseModel, Generic[T]):
    """One page of a list; ``next_cursor`` is null on the last."""

    items: list[T]
    next_cursor: str | None = None


def page_of(found: list[Item], limit: int) -> Page[Item]:
    """A page of ``found``, which the caller fetched with ``limit + 1``: the one too many says that there is more."""
    items = found[:limit]
    return Page(items=items, next_cursor=str(items[-1].id) if len(found) > limit else None)
