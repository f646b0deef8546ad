"""Bytes for people."""

from __future__ import annotations


def format_bytes(count: float) -> str:
    """``count`` bytes in decimal units, as disks and networks are sold: ``1.5 GB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
