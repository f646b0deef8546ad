"""A step that was launched on the device."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from serving_image.engine.step import SampledToken, ScheduledRequest, StepResult
from serving_image.runtime.failures import NOTHING_TO_CHOOSE
from serving_image.runtime.gpu.moment import Moment
from serving_image.runtime.gpu.step_sampler import Chosen, PromptReport

_POLL_SECONDS = 5e-5
"""A step takes milliseconds, and the next one is running by the time that this one is read."""


@dataclass(frozen=True, slots=True)
class LaunchedItems:
    """Items that run together; ``chosen`` is None if none of them samples."""

    items: Sequence[ScheduledRequest]
    chosen: Chosen | None
    prompt_reports: Sequence[PromptReport]

    def read(self, result: StepResult) -> None:
        """Add what these items yielded, which has arrived, to ``result``."""
        for report in self.prompt_reports:
            result.prompt_logprobs[report.request] = report.read()
        if self.chosen is None:
            return
        logprobs = self.chosen.read_logprobs()
        for item, token_id in zip(self.items, self.chosen.token_ids.tolist(), strict=False):
            if not item.samples:
                continue
            if token_id < 0:
                result.failed[item.request] = NOTHING_TO_CHOOSE
            else:
                result.sampled[item.request] = SampledToken(token_id, logprobs.get(item.request))


class GPUStep:
    """What :meth:`~serving_image.runtime.gpu.gpu_runner.GPURunner.launch` returns.

    :param launched: the step's items; usually all together.
    :param result: what is known already: requests that failed before anything was launched for them.
    """

    def __init__(self, started: Moment, ended: Moment, launched: Sequence[LaunchedItems], result: StepResult) -> None:
        self._started = started
        self._ended = ended
        self._launched = launched
        self._result = result
        self._was_read = False

    @property
    def answered(self) -> bool:
        """Whether tokens of it have been read."""
        return self._was_read and bool(self._result.sampled)

    def wait(self, seconds: float) -> bool:
        """Wait at most this long for the step's end; whether it has ended."""
        deadline = time.monotonic() + seconds
        while not self._ended.reached:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, _POLL_SECONDS))
        return True

    def result(self) -> StepResult:
        """Wait for the step and read it."""
        self._ended.wait()
        if not self._was_read:
            for items in self._launched:
                items.read(self._result)
            self._result.seconds = self._ended.seconds_since(self._started)
            self._was_read = True
        return self._result
