"""Figures as people read them: a narrow no-break space before every unit, never more digits than mean something."""

from __future__ import annotations

from datetime import datetime

#: U+202F: thin, and no line break.
THIN = "\u202f"
_DECIMAL = ["B", "kB", "MB", "GB", "TB", "PB"]
_BINARY = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]


def _scaled(value: float, base: int, units: list[str]) -> str:
    power = 0
    # 999.5 rounds to 1000, which reads better in the next unit.
    while value >= base * 0.9995 and power < len(units) - 1:
        value /= base
        power += 1
    digits = 0 if power == 0 or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f}{THIN}{units[power]}"


def size(n_bytes: float) -> str:
    """Bytes of a file or transfer, in decimal units: ``1.23 GB``."""
    return _scaled(n_bytes, 1000, _DECIMAL)


def memory(n_bytes: float) -> str:
    """Bytes of memory, in binary units: ``15.9 GiB``."""
    return _scaled(n_bytes, 1024, _BINARY)


def rate(bytes_per_s: float) -> str:
    """``12.3 MB/s``."""
    return f"{size(bytes_per_s)}/s"


def parameters(count: int) -> str:
    """A model's size: ``8.03 B``, ``135 M``."""
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= limit * 0.9995:
            return f"{count / limit:.3g}{THIN}{unit}"
    return str(count)


def number(value: int) -> str:
    """A whole number with its thousands apart: ``131 072``."""
    return f"{value:,}".replace(",", THIN)


def duration(seconds: float) -> str:
    """``4 s``, ``2 min 5 s``, ``1 h 3 min``, ``3 d 4 h``: the two largest units."""
    whole = max(0, round(seconds))
    parts = [
        (whole // 86400, "d"),
        (whole // 3600 % 24, "h"),
        (whole // 60 % 60, "min"),
        (whole % 60, "s"),
    ]
    first = next((i for i, (value, _) in enumerate(parts) if value), len(parts) - 1)
    return " ".join(f"{value}{THIN}{unit}" for value, unit in parts[first : first + 2] if value or unit == "s")


def money(dollars: float) -> str:
    """US dollars; more digits below a cent, so that a small cost is not shown as none."""
    return f"${dollars:.4f}" if 0 < dollars < 0.01 else f"${dollars:,.2f}"


def ago(moment: datetime, now: datetime) -> str:
    """How long ago, in one unit: ``3 min ago``, ``just now``."""
    seconds = (now - moment).total_seconds()
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{int(seconds // length)}{THIN}{unit} ago"
    return "just now" if seconds < 10 else f"{int(seconds)}{THIN}s ago"


def absolute(moment: datetime) -> str:
    """A time of day with its date and zone: ``2026-01-31 14:05:09 UTC``."""
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
