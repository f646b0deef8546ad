"""Rates from the times at which tokens came."""

from __future__ import annotations

import pytest
from engine.traces import Trace, decode_rate, makespan, output_rate, time_to_first_token


def test_one_request_decodes_after_its_first_token() -> None:
    trace = Trace(10.0, [(12.0, 1), (12.5, 1), (13.0, 1), (13.5, 1), (14.0, 1)])
    assert time_to_first_token(trace) == 2.0
    assert decode_rate([trace]) == 4 / 2.0


def test_several_requests_decode_while_all_of_them_do() -> None:
    early = Trace(0.0, [(1.0, 1), (2.0, 1), (3.0, 1), (4.0, 1)])
    late = Trace(0.0, [(2.5, 1), (3.5, 2), (4.5, 1), (9.0, 1)])
    # From 2.5, the late one's first token, to 4.0, the early one's end: tokens at 3.0 and 4.0, and two at 3.5.
    assert decode_rate([early, late]) == pytest.approx(4 / 1.5)


def test_output_counts_all_tokens_from_the_first_sending_to_the_last_end() -> None:
    traces = [Trace(1.0, [(2.0, 1), (3.0, 1)]), Trace(1.5, [(4.0, 2), (6.0, 4)])]
    assert makespan(traces) == 5.0
    assert output_rate(traces) == 8 / 5.0


def test_no_decoding_rate_without_a_moment_in_which_all_decode() -> None:
    with pytest.raises(ValueError, match="ended before"):
        decode_rate([Trace(0.0, [(1.0, 1), (2.0, 1)]), Trace(0.0, [(2.0, 1), (3.0, 1)])])
