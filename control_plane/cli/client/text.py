"""Figures and foreign text, made fit for a terminal."""

from __future__ import annotations

import unicodedata

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


#: Characters that reverse the direction of what follows, and so can make a line read as another.
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """``text`` without control characters, except line ends and tabs.

    Names, logs and answers come from others: an escape sequence in them must not steer the reader's terminal.
    """
    return "".join(c for c in text if c in "\n\t" or not (unicodedata.category(c) == "Cc" or c in _BIDI_CONTROLS))


def size(count: float | None) -> str:
    """Bytes in decimal units, as file sizes are given: ``1.5 GB``; a dash where unknown."""
    if count is None:
        return "–"
    power = 0
    while count >= 999.5 and power < len(_UNITS) - 1:
        count /= 1000
        power += 1
    return f"{count:.0f} {_UNITS[power]}" if power == 0 or count >= 99.95 else f"{count:.1f} {_UNITS[power]}"


def memory(count: float | None) -> str:
    """Bytes of memory in GiB; a dash where unknown."""
    return "–" if count is None else f"{count / 2**30:.1f} GiB"


def number(count: float | None) -> str:
    """A count in short: ``7.6 B`` parameters; a dash where unknown."""
    if count is None:
        return "–"
    for unit, factor in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= factor * 0.9995:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f}"


def duration(seconds: float | None) -> str:
    """Seconds as the two largest units that matter: ``3 min 20 s``; a dash where unknown."""
    if seconds is None:
        return "–"
    whole = max(0, round(seconds))
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    while len(parts) > 1 and parts[0][0] == 0:
        parts = parts[1:]
    return " ".join(f"{value} {unit}" for value, unit in parts[:2] if value or unit == parts[0][1])


def price(per_hour: float) -> str:
    """US dollars per hour."""
    return "free" if per_hour == 0 else f"${per_hour:.2f}/h" if per_hour >= 0.01 else f"${per_hour:.4f}/h"
