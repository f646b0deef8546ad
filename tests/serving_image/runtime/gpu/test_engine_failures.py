"""What fails alone, and what ends the engine."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from serving_image.models.decoder import Decoder
from serving_image.models.interface import ModelInput
from serving_image.runtime.failures import NOTHING_TO_CHOOSE, RAISED
from tests.serving_image.checkpoints import random_prompt, transformers_greedy
from tests.serving_image.generation import greedy_request, run_to_end, tokens_by_request
from tests.serving_image.runtime.gpu.engine import ask, assert_idle, runner_of, start_on_gpu


def test_a_request_whose_scores_overflow_fails_alone(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Token 255 embeds as NaN, which also stays in the cache until others take the block."""
    core = start_on_gpu(model, num_blocks=6)
    decoder = runner_of(core)._model
    assert isinstance(decoder, Decoder)
    decoder._embedding.table[255] = float("nan")
    core.add(ask("victim", [1, 255, 3], 4))
    core.add(greedy_request("good", [1, 2, 3], 4))
    outputs, _ = run_to_end(core)
    assert [(o.token_ids, o.finish_reason, o.error) for o in outputs if o.request_id == "victim"] == [
        ([], "error", NOTHING_TO_CHOOSE)
    ]
    assert tokens_by_request(outputs)["good"] == transformers_greedy(model, [1, 2, 3], 4)
    prompt = random_prompt(80, seed=3)
    core.add(greedy_request("next", prompt, 2))
    assert tokens_by_request(run_to_end(core)[0])["next"] == transformers_greedy(model, prompt, 2)
    assert_idle(core)


def test_a_request_that_makes_the_host_raise_fails_alone(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    core = start_on_gpu(model)
    forward = Decoder.forward

    def fail_on_255(self: Decoder, batch: ModelInput, *more: Any) -> torch.Tensor:
        if 255 in batch.token_ids:
            raise RuntimeError("out of memory")
        return forward(self, batch, *more)

    monkeypatch.setattr(Decoder, "forward", fail_on_255)
    core.add(greedy_request("good", [1, 2, 3], 3))
    core.add(greedy_request("victim", [1, 255], 3))
    with caplog.at_level(logging.ERROR):
        outputs, _ = run_to_end(core)
    assert [output.error for output in outputs if output.request_id == "victim"] == [RAISED]
    assert "out of memory" in caplog.text
    assert tokens_by_request(outputs)["good"] == transformers_greedy(model, [1, 2, 3], 3)
    assert_idle(core)


def test_a_device_that_is_lost_ends_the_engine(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    core = start_on_gpu(model)

    def lost(*_: Any) -> torch.Tensor:
        raise torch.AcceleratorError("an illegal memory access was encountered")

    monkeypatch.setattr(Decoder, "forward", lost)
    core.add(greedy_request("r", [1, 2, 3], 3))
    with pytest.raises(torch.AcceleratorError):
        core.step()
