"""Requests that the engine core does not take, beside one that it does."""

from __future__ import annotations

import pytest

from serving_image.engine.protocol import AddRequest
from tests.serving_image.engine.scripted_runner import VOCAB_SIZE, ScriptedEngine, ask, expected_tokens
from tests.serving_image.generation import run_to_end, tokens_by_request


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (ask("bad", [1] * 64, 1), "The prompt has 64 tokens, but prompt and answer together may have 64"),
        (ask("bad", [1, VOCAB_SIZE], 1), "The prompt has a token id outside 0 … 49"),
        (ask("bad", [-1], 1), "The prompt has a token id outside 0 … 49"),
        (ask("bad", [], 1), "empty"),
        (ask("bad", [1], 0), "max_tokens must be at least 1"),
        (ask("bad", [1] * 30, 12), "room for 41 tokens, but the key/value cache has 40"),
        (ask("bad", [1], 1, logit_bias={VOCAB_SIZE: 1.0}), "logit_bias has a token id outside 0 … 49"),
        (ask("bad", [1], 1, allowed_token_ids=[1, -2]), "allowed_token_ids has a token id outside"),
        (ask("bad", [1], 1, allowed_token_ids=[]), "allowed_token_ids is empty"),
        (ask("bad", [1], 1, bad_words=[[1], [2, 99]]), "bad_words has a token id outside"),
    ],
)
def test_a_request_that_can_never_run_fails_alone(message: AddRequest, says: str) -> None:
    engine = ScriptedEngine(num_blocks=10, max_model_len=64)
    engine.core.add(ask("good", [1, 2, 3], 5))
    refused = engine.core.add(message)
    assert refused is not None
    assert (refused.request_id, refused.finish_reason, refused.token_ids) == ("bad", "error", [])
    assert says in (refused.error or "")
    assert tokens_by_request(run_to_end(engine.core)[0]) == {"good": expected_tokens([1, 2, 3], 5)}


def test_a_second_request_with_a_live_id_does_not_disturb_the_first(caplog: pytest.LogCaptureFixture) -> None:
    engine = ScriptedEngine()
    engine.core.add(ask("r", [1, 2, 3], 5))
    assert engine.core.add(ask("r", [4, 5], 9)) is None
    assert "request id r is in use" in caplog.text
    assert tokens_by_request(run_to_end(engine.core)[0])["r"] == expected_tokens([1, 2, 3], 5)
