"""Waiting for a step on a device that takes its time, and reading it once."""

from __future__ import annotations

import pytest
import torch

from serving_image.engine.step import ScheduledRequest, StepResult
from serving_image.runtime.failures import NOTHING_TO_CHOOSE
from serving_image.runtime.gpu.moment import Moment, mark
from serving_image.runtime.gpu.pending_step import GPUStep, LaunchedItems
from serving_image.runtime.gpu.step_sampler import Chosen
from tests.serving_image.engine.scripted_runner import make_request


class Later:
    """A moment that is reached when it has been asked for often enough, or waited for."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    @property
    def reached(self) -> bool:
        self.looks -= 1
        return self.looks < 0

    def wait(self) -> None:
        self.looks = 0

    def seconds_since(self, earlier: Moment) -> float:
        assert earlier.reached
        return 0.25


def step(ended: Moment, token_ids: list[int]) -> tuple[GPUStep, list[ScheduledRequest]]:
    """A step of three requests, the second of which does not sample."""
    items = [ScheduledRequest(make_request(str(i), 3, 2), 0, 3, (), i != 1) for i in range(3)]
    chosen = Chosen(torch.tensor(token_ids, dtype=torch.int32), [], None)
    return GPUStep(mark(torch.device("cpu")), ended, [LaunchedItems(items, chosen, [])], StepResult()), items


def test_a_wait_ends_with_the_step_or_with_the_time() -> None:
    pending, _ = step(Later(3), [7, 8, 9])
    assert pending.wait(60.0)
    never, _ = step(Later(10**9), [7, 8, 9])
    assert not never.wait(0.0)
    assert not never.wait(0.001)


def test_a_result_holds_what_was_sampled_and_who_failed() -> None:
    pending, (_, second, third) = step(Later(5), [7, 8, -1, 0, 0])
    assert not pending.answered
    result = pending.result()
    assert {request.request_id: token.token_id for request, token in result.sampled.items()} == {"0": 7}
    assert result.failed == {third.request: NOTHING_TO_CHOOSE}
    assert second.request not in result.sampled
    assert result.seconds == 0.25
    assert pending.answered
    assert pending.result() is result


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_moments_on_a_gpu_are_reached_in_order_and_timed_there() -> None:
    device = torch.device("cuda")
    started = mark(device)
    torch.cuda._sleep(50_000_000)
    ended = mark(device)
    assert not ended.reached
    ended.wait()
    assert started.reached
    assert ended.seconds_since(started) > 0.001
