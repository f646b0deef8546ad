"""The small arithmetic: rates, waits, and bytes for people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from control_plane.downloads.rate import RateMeter
from control_plane.downloads.retry import Backoff, parse_retry_after
from control_plane.downloads.units import format_bytes

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def test_the_rate_is_that_of_the_last_ten_seconds_and_not_of_what_was_there_before() -> None:
    meter = RateMeter(NOW, 5000)
    assert meter.add(NOW, 5000) == 0
    assert meter.add(NOW + timedelta(seconds=2), 5600) == 300
    assert meter.add(NOW + timedelta(seconds=4), 5600) == 150
    for second in range(5, 40):
        rate = meter.add(NOW + timedelta(seconds=second), 5600 + 100 * (second - 4))
    assert rate == 100
    assert meter.add(NOW + timedelta(seconds=41), 0) == 0, "a file that is fetched anew"


def test_waits_double_up_to_a_limit_and_never_undercut_what_was_asked_for() -> None:
    backoff = Backoff(attempts=5, first_s=1, longest_s=6)
    for failures, least in ((1, 1), (2, 2), (3, 4), (4, 6), (40, 6)):
        assert least <= backoff.delay_s(failures) <= least * 1.25
    assert 30 <= backoff.delay_s(1, asked_for_s=30) <= 37.5


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("Thu, 01 Jan 2026 12:01:30 GMT", 90.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("-3", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (16_060_000_000, "16.1 GB"), (2.5e12, "2.5 TB")],
)
def test_bytes_for_people(count: float, text: str) -> None:
    assert format_bytes(count) == text
