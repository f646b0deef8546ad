"""The table's verdicts follow from the figures."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine.machine import Machine
from engine.report import goals, page
from engine.results import Key, Record, Results

MACHINE = Machine(
    cpu="a processor",
    cores=2,
    memory_bytes=2**34,
    load_average_at_start=0.1,
    python="3.11",
    read={"1": 10e9, "2": 20e9},
    gemm={"float32": 200e9, "bfloat16": 400e9, "float16": 100e9, "int8": 1000e9},
    import_torch=1.5,
)


def results(*records: Record) -> Results:
    about = {"rounds": 3, "machine": MACHINE.as_json(), "versions": {"torch": "2"}, "checkpoint_bytes": 500_000_000}
    return Results(about, list(records), {})


def rounds(contender: str, case: str, figure: str, *values: float) -> list[Record]:
    return [Record(number, contender, case, {figure: value}) for number, value in enumerate(values, start=1)]


def verdict(found: Results, case: str, text: str) -> str:
    (goal,) = (goal for goal in goals() if goal.case == case and goal.text == text and goal.variant == "exact")
    return goal.verdict(found)


@pytest.mark.parametrize(("rate", "met"), [(185.0, "yes"), (175.0, "**no**")])
def test_medians_are_compared(rate: float, met: str) -> None:
    ours = rounds("slipway", "burst", "output_tokens_per_s", 1.0, rate, 900.0)
    peer = rounds("vllm", "burst", "output_tokens_per_s", 100.0, 5.0, 700.0)
    assert verdict(results(*ours, *peer), "burst", "≥ 1.8 × vllm") == met


@pytest.mark.parametrize(("seconds", "met"), [(0.6, "yes"), (0.7, "**no**")])
def test_times_are_to_be_short(seconds: float, met: str) -> None:
    ours = rounds("slipway", "prompt_512", "first_token_s", seconds)
    peer = rounds("vllm", "prompt_512", "first_token_s", 1.0)
    assert verdict(results(*ours, *peer), "prompt_512", "≤ 0.65 × vllm") == met


@pytest.mark.parametrize(("rate", "met"), [(41.0, "yes"), (39.0, "**no**")])
def test_share_of_the_bandwidth(rate: float, met: str) -> None:
    # 426 MB of weights at 20 GB/s: 46.9 tokens/s at best, 39.9 at 85 %.
    found = results(*rounds("slipway", "one", "decode_tokens_per_s", rate))
    assert verdict(found, "one", "≥ 85% of bandwidth ÷ weight bytes") == met


@pytest.mark.parametrize(("rss", "met"), [(1.79e9, "yes"), (1.81e9, "**no**")])
def test_memory_beside_the_cache_in_use(rss: float, met: str) -> None:
    # 2.2 × 500 MB + 300 MB of cache + 400 MB.
    found = results(Record(1, "slipway", "memory", {"rss_burst": rss, "kv_in_use": 300e6}))
    text = "after the burst: ≤ 2.2 × checkpoint + cache in use + 400 MB"
    assert verdict(found, "memory", text) == met


def test_what_was_not_measured_has_no_verdict_and_an_absent_peer_says_how_to_get_it() -> None:
    found = results(*rounds("slipway", "burst", "output_tokens_per_s", 200.0))
    found.absent["vllm"] = "run the installer"
    assert verdict(found, "burst", "≥ 1.8 × vllm") == "—"
    text = page(found)
    assert "not installed" in text
    assert "run the installer" in text


def test_a_failure_is_in_the_page_and_the_rest_is_too(tmp_path: Path) -> None:
    found = results(*rounds("slipway", "one", "decode_tokens_per_s", 40.0), Record(2, "vllm", "one", {}, "it died"))
    path = tmp_path / "results.json"
    found.write(path)
    again = Results.read(path)
    assert again.median(Key("slipway", "one", "decode_tokens_per_s")) == 40.0
    text = page(again)
    assert "round 2, vllm, one: it died" in text
    assert "40.0 tok/s" in text
