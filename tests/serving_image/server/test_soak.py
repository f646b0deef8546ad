"""The soak of ``benchmarks/soak``, in small; that memory comes to rest takes a longer one to show."""

from __future__ import annotations

from benchmarks.soak.run import soak


def test_after_mixed_requests_everything_is_as_it_was():
    result = soak(300, warm_up=100, most_growth=0.2, options=("--threads", "1"))
    assert result.failures == [], result.page()
    assert result.tally.requests["left in mid-stream"] > 0
    assert result.tally.requests["cancelled in time"] > 0
