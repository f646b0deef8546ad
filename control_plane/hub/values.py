"""Values of a config.json that a stranger wrote: looked up under several names, and checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from control_plane.hub.errors import InvalidRepository

#: A number above this in a config is nonsense, not a model.
_LARGEST = 1_000_000_000


def number(values: Mapping[str, Any], names: tuple[str, ...], *, most: int = _LARGEST) -> int | None:
    """The first of ``names`` that has a value, a whole number up to ``most``; zeros and lists do not count.

    :raises InvalidRepository: anything else.
    """
    for name in names:
        value = values.get(name)
        if value is not None and value != 0 and not isinstance(value, list):
            return _checked(value, name, most)
    return None


def numbers_per_layer(values: Mapping[str, Any], names: tuple[str, ...], count: int) -> list[int]:
    """The first of ``names`` that is a list of ``count`` whole numbers; empty where none is.

    :raises InvalidRepository: the list holds anything else.
    """
    for name in names:
        value = values.get(name)
        if isinstance(value, list) and len(value) == count:
            return [_checked(item, name, _LARGEST) for item in value]
    return []


def _checked(value: Any, name: str, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
        raise InvalidRepository(f"config.json: {name} is {str(value)[:50]!r}, not a sensible whole number.")
    return value


def flag(values: Mapping[str, Any], name: str) -> bool | None:
    """A truth value; None where there is none.

    :raises InvalidRepository: anything else.
    """
    value = values.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidRepository(f"config.json: {name} is {str(value)[:50]!r}, neither true nor false.")
    return value


def text(values: Mapping[str, Any], name: str) -> str | None:
    """Text, cut to a hundred characters; None where there is none.

    :raises InvalidRepository: not text.
    """
    value = values.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidRepository(f"config.json: {name} is not text.")
    return value[:100] if value else None


def mapping(value: Any) -> Mapping[str, Any]:
    """``value`` if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}
