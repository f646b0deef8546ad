"""When a lack of progress counts as a stall."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from serving_image.engine.protocol import EngineReady
from serving_image.engine.watchdog import StallDetector, default_stall_timeout


@dataclass
class Engine:
    has_work: bool = True
    last_progress: float = 0.0


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def detector(engine: Engine) -> StallDetector:
    """It looks once a second, from 0 on."""
    return StallDetector(engine, 1.0, now=0.0)


def test_the_time_without_progress_adds_up(detector: StallDetector) -> None:
    assert [detector.look(float(now)) for now in range(1, 5)] == [1, 2, 3, 4]


def test_progress_and_idleness_begin_it_anew(engine: Engine, detector: StallDetector) -> None:
    detector.look(1.0)
    engine.last_progress = 1.5
    assert detector.look(2.0) == 0
    assert detector.look(3.0) == 1
    engine.has_work = False
    assert detector.look(4.0) == 0
    assert detector.look(5.0) == 0


def test_an_engine_that_just_became_busy_is_not_judged_by_its_idle_time(
    engine: Engine, detector: StallDetector
) -> None:
    engine.has_work = False
    for now in range(1, 100):
        detector.look(float(now))
    engine.has_work, engine.last_progress = True, 99.5
    assert detector.look(100.0) == 0
    assert detector.look(101.0) == 1


def test_a_process_that_was_stopped_is_not_judged_by_that_time(engine: Engine, detector: StallDetector) -> None:
    assert detector.look(1.0) == 1
    assert detector.look(3601.0) == 3  # a look counts for twice its interval at most
    engine.last_progress = 3601.5
    assert detector.look(3602.0) == 0


def ready(parameters: int, device: str) -> EngineReady:
    return EngineReady(
        device=device,
        dtype="float32",
        parameters=parameters,
        vocab_size=1,
        max_model_len=1,
        max_num_seqs=1,
        block_size=1,
        num_blocks=1,
        kv_cache_bytes=0,
        boot=[],
    )


def test_a_large_model_on_a_cpu_has_longer_for_a_step() -> None:
    assert default_stall_timeout(ready(246_000_000, "cpu"), 2048) == 120
    # 2,048 tokens of seven billion parameters take two cores at 140 billion operations a second 205 s.
    assert default_stall_timeout(ready(7_000_000_000, "cpu"), 2048) > 5 * 205
    assert default_stall_timeout(ready(7_000_000_000, "cpu"), 64) == 120
    assert default_stall_timeout(ready(7_000_000_000, "cuda:0"), 2048) == 120
