"""Figures and foreign text on a terminal."""

from __future__ import annotations

import pytest

from control_plane.cli.client import text


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (None, "–"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1536, "1.5 kB"),
        (999_400, "999 kB"),
        (999_949, "1.0 MB"),
        (123_456_789, "123 MB"),
        (4_000_000_000, "4.0 GB"),
        (5e18, "5000 PB"),
    ],
)
def test_size(count: float | None, said: str) -> None:
    assert text.size(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "–"),
        (-3, "0 s"),
        (0, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (3660, "1 h 1 min"),
        (90_061, "1 d 1 h"),
        (86_400, "1 d"),
    ],
)
def test_duration(seconds: float | None, said: str) -> None:
    assert text.duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [(None, "–"), (999, "999"), (7_615_616_512, "7.62 B"), (135e6, "135 M"), (1.04e12, "1.04 T"), (1500, "1.5 k")],
)
def test_number(count: float | None, said: str) -> None:
    assert text.number(count) == said


def test_price_and_memory() -> None:
    assert (text.price(0), text.price(2.5), text.price(0.0004)) == ("free", "$2.50/h", "$0.0004/h")
    assert (text.memory(None), text.memory(24 * 2**30)) == ("–", "24.0 GiB")


def test_foreign_text_cannot_steer_the_terminal() -> None:
    hostile = "a\x1b]0;owned\x07b\x1b[2Jc\rd\x9b31me\u202ef\n\tg 👩\u200d🔬 é"
    shown = text.printable(hostile)
    assert shown == "a]0;ownedb[2Jcd31mef\n\tg 👩\u200d🔬 é"
