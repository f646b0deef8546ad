"""The page's verdicts and shares follow from the figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.gpu.report import page
from benchmarks.gpu.results import Ceilings, Figure, Results
from benchmarks.gpu.targets import TARGETS, TITLES, Target

CEILINGS = Ceilings(copy=4e12, matmul=800e12)
GIGABYTE = 10**9


def target(row: str, text: str) -> Target:
    (found,) = (each for each in TARGETS if each.row == row and text in each.text)
    return found


def verdicts(row: str, text: str, *figures: Figure) -> list[bool]:
    found = target(row, text)
    return [found.met(value) for value in found.values(figures, CEILINGS)]


def decode(seconds: float, moved: int = GIGABYTE, **peers: float) -> Figure:
    named = {name.replace("_", " "): time for name, time in peers.items()}
    return Figure("decode_attention", "batch 64, context 4096", seconds, moved, 10**9, named)


def test_a_decode_is_held_against_the_copy_from_256_megabytes() -> None:
    # 1 GB at 4 TB/s takes 250 µs, 90 % of that rate 277.8 µs.
    figures = decode(277e-6), decode(279e-6), decode(1.0, moved=255 * 10**6)
    assert verdicts("decode_attention", "copy", *figures) == [True, False]


def test_flashinfer_is_the_bar_where_it_was_measured_and_else_gathering() -> None:
    both = decode(1e-3, FlashInfer=0.9e-3, SDPA_over_gathered_pages=9e-3)
    alone = [decode(1e-3, SDPA_over_gathered_pages=seconds) for seconds in (1.4e-3, 1.6e-3)]
    assert verdicts("decode_attention", "≥ FlashInfer", both, *alone) == [False]
    assert verdicts("decode_attention", "gathered pages", both, *alone) == [False, True]


def test_a_prefill_is_held_against_the_faster_of_torchs_two() -> None:
    figure = Figure(
        "prefill_attention", "8192 tokens", 1e-3, 1, 520 * 10**9, {"SDPA, cuDNN": 0.96e-3, "SDPA, flash": 0.94e-3}
    )
    assert verdicts("prefill_attention", "500", figure) == [True]
    assert verdicts("prefill_attention", "0.95", figure) == [False]


@pytest.mark.parametrize(("step", "met"), [(0.0249, True), (0.0251, False)])
def test_a_step_is_held_against_the_sum_of_its_floors(step: float, met: bool) -> None:
    values = {"decode_step_s": step, "decode_step_floor_s": 0.02}
    assert verdicts("many_requests", "1.25", Figure("many_requests", "256", 60.0, values=values)) == [met]
    assert verdicts("many_requests", "1.25", Figure("many_requests", "256", 60.0)) == []


def test_the_sampler_is_held_where_it_truncates_a_full_batch() -> None:
    cases = {"batch 256, top-k 50, top-p 0.9": 240e-6, "batch 64, top-k 50, top-p 0.9": 1.0, "batch 256, greedy": 1.0}
    figures = [Figure("sampler", case, seconds, 131 * 10**6) for case, seconds in cases.items()]
    assert verdicts("sampler", "250", *figures) == [True]


def test_every_row_of_a_target_has_a_title() -> None:
    assert {each.row for each in TARGETS} <= set(TITLES)


def results(*figures: Figure) -> Results:
    about = {"device": "NVIDIA H200", "date": "2030-01-02", "versions": "torch 2"}
    return Results(about, CEILINGS, {"kernels": ""}, {}, list(figures))


def test_shares_and_floors_are_computed_from_the_ceilings_of_the_run(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results(decode(500e-6, FlashInfer=550e-6)).write(path)
    text = page(Results.read(path))
    # 1 GB in 500 µs is 2 TB/s, half of the copy's; 10⁹ operations take 1.25 µs.
    assert (
        "| batch 64, context 4096 | 500 µs | 2.00 | 2 | 250 µs | 1.25 µs | 50% | FlashInfer 550 µs (1.10 ×) |" in text
    )
    assert "| ≥ 90 % of the copy's bandwidth from 256 MB | 50% | 50% | **0 of 1** |" in text
    assert "| ≥ FlashInfer | 1.10 × | 1.10 × | all |" in text


def test_what_was_not_measured_is_said_and_has_no_number() -> None:
    text = page(results(decode(500e-6)))
    assert "| Start to first token | ≤ 20 s | — | — | not measured |" in text
    assert "### Start to first token" not in text


def test_a_run_without_ceilings_has_no_targets_and_failures_of_tests_are_named() -> None:
    found = results()
    found.ceilings = None
    found.tests = {"passed": 3, "failed": 1, "skipped": 0, "failures": ["tests.kernels::test_x"], "seconds": 12.3}
    text = page(found)
    assert "Targets" not in text
    assert "3 passed, 1 failed, 0 skipped, in 12 s." in text
    assert "- failed: `tests.kernels::test_x`" in text
