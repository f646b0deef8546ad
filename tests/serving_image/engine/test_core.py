"""The engine core over a scripted device: the order of overlapped steps, and what happens to requests between them."""

from __future__ import annotations

import logging

import pytest

from serving_image.engine.block_pool import CachedPrefix
from serving_image.engine.block_table import BlockTable
from serving_image.engine.protocol import AddRequest, RequestOutput
from tests.serving_image.engine.scripted_runner import (
    BLOCK,
    ScriptedEngine,
    ask,
    expected_tokens,
    random_prompt,
)
from tests.serving_image.generation import run_to_end, tokens_by_request


def _run(engine: ScriptedEngine, *messages: AddRequest) -> dict[str, list[RequestOutput]]:
    """Add the requests and step until all have ended; the outputs of each."""
    for message in messages:
        assert engine.core.add(message) is None
    outputs: dict[str, list[RequestOutput]] = {}
    for output in run_to_end(engine.core)[0]:
        outputs.setdefault(output.request_id, []).append(output)
    engine.check_idle()
    return outputs


def _tokens(outputs: list[RequestOutput]) -> list[int]:
    return [token for output in outputs for token in output.token_ids]


def test_each_step_is_launched_before_the_one_before_it_is_read() -> None:
    engine = ScriptedEngine()
    prompt = random_prompt(3)
    outputs = _run(engine, ask("r", prompt, 4))
    assert engine.runner.log == [
        ("launch", 1),
        ("launch", 2),
        ("read", 1),
        ("launch", 3),
        ("read", 2),
        ("launch", 4),
        ("read", 3),
        ("read", 4),
    ]
    assert _tokens(outputs["r"]) == expected_tokens(prompt, 4)
    assert [output.finish_reason for output in outputs["r"]] == [None, None, None, "length"]


@pytest.mark.parametrize("enable_prefix_caching", [True, False])
@pytest.mark.parametrize("quick", [True, False])
def test_a_crowd_in_chunks_gets_what_each_gets_alone(quick: bool, enable_prefix_caching: bool) -> None:
    engine = ScriptedEngine(budget=24, enable_prefix_caching=enable_prefix_caching)
    engine.runner.quick = quick
    prompts = {str(index): random_prompt(1 + 7 * index % 40, index) for index in range(20)}
    outputs = _run(engine, *(ask(name, prompt, 1 + int(name)) for name, prompt in prompts.items()))
    for name, prompt in prompts.items():
        assert _tokens(outputs[name]) == expected_tokens(prompt, 1 + int(name))
        assert [output.finish_reason for output in outputs[name]] == [None] * int(name) + ["length"]
    # A request whose last token is pending is not launched once more.
    assert sum(item.samples for step in engine.runner.steps for item in step) == sum(range(1, 21))


def test_the_runner_is_told_of_every_request_that_has_ended() -> None:
    """Finished, failed, aborted while it ran or before it did; once each."""
    engine = ScriptedEngine(max_num_seqs=3)
    engine.runner.fails = lambda item: item.request.request_id == "fails"
    for name in ("done", "fails", "aborted", "waiting"):
        assert engine.core.add(ask(name, random_prompt(5), 3)) is None
    for _ in range(3):
        engine.core.step()
    assert [request.request_id for request in engine.runner.forgotten] == ["fails"]
    engine.core.abort(["aborted", "waiting", "nobody"])
    run_to_end(engine.core)
    assert [request.request_id for request in engine.runner.forgotten] == ["fails", "aborted", "waiting", "done"]


def test_a_stop_token_found_one_step_late_ends_the_request_there() -> None:
    engine = ScriptedEngine()
    prompt = random_prompt(5)
    tokens = expected_tokens(prompt, 30)
    stop = tokens[7]
    end = tokens.index(stop) + 1
    other = random_prompt(6)
    outputs = _run(engine, ask("r", prompt, 30, stop_token_ids=frozenset({stop})), ask("other", other, 20))
    assert _tokens(outputs["r"]) == tokens[:end]
    assert [output.finish_reason for output in outputs["r"]] == [None] * (end - 1) + ["stop"]
    launched = sum(item.samples for step in engine.runner.steps for item in step if item.request.request_id == "r")
    assert launched == end + 1
    assert _tokens(outputs["other"]) == expected_tokens(other, 20)


def test_a_request_ends_at_the_context_even_if_max_tokens_is_more() -> None:
    engine = ScriptedEngine(max_model_len=32)
    outputs = _run(engine, ask("r", random_prompt(30), 100))
    assert [output.finish_reason for output in outputs["r"]] == [None, "length"]


def test_abort_frees_blocks_at_once_and_what_was_launched_is_dropped() -> None:
    engine = ScriptedEngine(max_num_seqs=2)
    core = engine.core
    for name in ("running", "survivor", "waiting"):
        core.add(ask(name, [1, 2, 3], 8))
    core.step()
    core.step()
    assert (core.stats().num_running, core.stats().num_waiting) == (2, 1)
    ended = core.abort(["running", "waiting", "unknown", "running"])
    assert [(output.request_id, output.finish_reason) for output in ended] == [
        ("running", "abort"),
        ("waiting", "abort"),
    ]
    assert engine.pool.num_held == 1
    # The same id may come again while a step of the first request is still unread.
    core.add(ask("running", [4, 5], 3))
    tokens = tokens_by_request(run_to_end(core)[0])
    assert tokens["running"] == expected_tokens([4, 5], 3)
    assert tokens["survivor"] == expected_tokens([1, 2, 3], 8)[1:]
    engine.check_idle()


def test_there_is_work_until_the_last_launched_step_is_read() -> None:
    engine = ScriptedEngine()
    engine.core.add(ask("r", [1, 2, 3], 8))
    engine.core.step()
    engine.core.abort(["r"])
    busy = engine.core.has_work
    assert busy
    assert engine.core.step().outputs == []
    engine.check_idle()
    assert engine.runner.log == [("launch", 1), ("read", 1)]


def test_preemption_with_a_step_in_flight_changes_no_token() -> None:
    engine = ScriptedEngine(num_blocks=14, budget=40)
    prompts = {str(index): random_prompt(10, index) for index in range(5)}
    outputs = _run(engine, *(ask(name, prompt, 20) for name, prompt in prompts.items()))
    assert engine.core.stats().num_preemptions > 0
    for name, prompt in prompts.items():
        assert _tokens(outputs[name]) == expected_tokens(prompt, 20)


def test_a_failed_request_ends_and_the_others_go_on() -> None:
    engine = ScriptedEngine()
    engine.runner.fails = lambda item: item.request.request_id == "victim" and item.start + item.num_tokens > 6
    prompt = random_prompt(5)
    outputs = _run(engine, ask("victim", prompt, 9), ask("other", prompt, 9))
    assert [output.finish_reason for output in outputs["victim"]] == [None, None, "error"]
    assert outputs["victim"][-1].error == "The device failed."
    assert _tokens(outputs["victim"]) == expected_tokens(prompt, 2)
    assert _tokens(outputs["other"]) == expected_tokens(prompt, 9)


def test_blocks_of_a_failed_step_are_never_shared() -> None:
    engine = ScriptedEngine()
    prompt = random_prompt(3 * BLOCK)
    engine.runner.fails = lambda item: item.request.request_id == "victim"
    assert _run(engine, ask("victim", prompt, 3))["victim"][-1].finish_reason == "error"
    (first, *_) = _run(engine, ask("next", prompt, 3))["next"]
    assert first.num_cached_tokens == 0


def test_a_lost_device_is_not_hidden() -> None:
    engine = ScriptedEngine()
    engine.core.add(ask("r", [1], 3))
    engine.core.step()
    engine.runner.lost = RuntimeError("the device is gone")
    with pytest.raises(RuntimeError, match="the device is gone"):
        engine.core.step()


def test_waiting_for_a_step_lets_go_in_time_and_is_no_progress() -> None:
    engine = ScriptedEngine()
    core = engine.core
    core.add(ask("r", [1, 2], 1))
    became_busy = engine.clock.now
    core.step(0.5)
    engine.runner.waits_before_end = 3
    for _ in range(3):
        step = core.step(0.5)
        assert (step.outputs, step.stats.batch_tokens) == ([], 0)
    assert engine.clock.now == became_busy + 1.5
    assert core.last_progress == became_busy
    step = core.step(0.5)
    assert _tokens(step.outputs) == expected_tokens([1, 2], 1)
    assert (step.stats.step, step.stats.batch_tokens, step.stats.step_seconds) == (1, 2, 0.25)
    assert core.last_progress == engine.clock.now
    assert engine.runner.log == [("launch", 1), ("read", 1)]


def test_no_more_than_two_steps_are_launched_however_long_the_first_takes() -> None:
    engine = ScriptedEngine()
    engine.core.add(ask("r", [1, 2], 9))
    engine.runner.waits_before_end = 5
    for _ in range(5):
        engine.core.step(0.5)
    assert engine.runner.log == [("launch", 1), ("launch", 2)]


def test_an_engine_that_was_idle_for_long_is_not_late_when_work_comes() -> None:
    engine = ScriptedEngine()
    engine.clock.now += 1000
    engine.core.add(ask("first", [1], 2))
    assert engine.core.last_progress == engine.clock.now
    engine.clock.now += 1
    engine.core.add(ask("second", [1], 2))
    assert engine.core.last_progress == engine.clock.now - 1


def test_prompt_logprobs_of_all_chunks_come_once_with_the_first_token() -> None:
    engine = ScriptedEngine(budget=10)
    prompt = random_prompt(26)
    _run(engine, ask("before", prompt, 1))
    outputs = _run(engine, ask("r", prompt, 3, prompt_logprobs=0, logprobs=1), ask("plain", prompt, 2))
    first, *rest = outputs["r"]
    assert first.prompt_logprobs is not None
    assert [entry.token_id for entry in first.prompt_logprobs] == prompt[1:]
    assert [entry.logprob for entry in first.prompt_logprobs] == [-float(position) for position in range(1, 26)]
    assert first.num_cached_tokens == 0  # each position had to be computed
    assert [output.prompt_logprobs for output in rest] == [None, None]
    assert [[entry.token_id for entry in output.logprobs or []] for output in outputs["r"]] == [
        [token] for token in expected_tokens(prompt, 3)
    ]
    assert all(output.prompt_logprobs is output.logprobs is None for output in outputs["plain"])


def test_prompt_logprobs_survive_a_preemption_half_way() -> None:
    engine = ScriptedEngine(budget=10, max_num_seqs=1)
    prompt = random_prompt(36)
    engine.core.add(ask("r", prompt, 2, priority=1, prompt_logprobs=0))
    engine.core.step()
    engine.core.step()
    outputs = _run(engine, ask("urgent", [1, 2, 3], 4))
    assert engine.core.stats().num_preemptions == 1
    assert [entry.token_id for entry in outputs["r"][0].prompt_logprobs or []] == prompt[1:]
    assert _tokens(outputs["r"]) == expected_tokens(prompt, 2)


def test_a_conversation_finds_its_own_answers_in_the_cache() -> None:
    engine = ScriptedEngine(budget=64)
    prompt = random_prompt(10)
    answer = _tokens(_run(engine, ask("turn 1", prompt, 12))["turn 1"])
    follow_up = prompt + answer + [1, 2, 3]
    outputs = _run(engine, ask("turn 2", follow_up, 5))["turn 2"]
    # The answer's last token was never computed, so the block it would complete is not there.
    assert [output.num_cached_tokens for output in outputs] == [20, 0, 0, 0, 0]
    assert _tokens(outputs) == expected_tokens(follow_up, 5)
    stats = engine.core.stats()
    assert (stats.prefix_cache_queries, stats.prefix_cache_hits) == (10 + 25, 20)
    assert _run(engine, ask("stranger", follow_up, 1, cache_salt="x"))["stranger"][0].num_cached_tokens == 0


def test_a_prompt_that_is_cached_whole_computes_only_its_last_block() -> None:
    engine = ScriptedEngine(budget=64)
    prompt = random_prompt(6 * BLOCK)
    _run(engine, ask("first", prompt, 2))
    outputs = _run(engine, ask("again", prompt, 2))["again"]
    assert outputs[0].num_cached_tokens == 5 * BLOCK
    assert _tokens(outputs) == expected_tokens(prompt, 2)


def test_waits_for_a_slot_are_told_with_the_first_token_and_once_in_the_stats() -> None:
    engine = ScriptedEngine(max_num_seqs=1)
    core = engine.core
    core.add(ask("first", [1], 2))
    core.add(ask("second", [2], 2))
    steps = []
    while core.has_work:
        engine.clock.now += 1
        steps.append(core.step())
    waits = [wait for step in steps for wait in step.stats.queue_seconds]
    outputs = [output for step in steps for output in step.outputs]
    assert waits == [output.queue_seconds for output in outputs if output.queue_seconds]
    assert waits[0] == 1.0
    assert waits[1] > 2.0


def test_a_short_request_behind_a_long_prefill_is_in_the_next_step_launched() -> None:
    engine = ScriptedEngine(num_blocks=2000, budget=512, max_model_len=5000)
    core = engine.core
    core.add(ask("long", random_prompt(4000), 2))
    for _ in range(3):
        core.step()
    launched = len(engine.runner.steps)
    short = random_prompt(100)
    core.add(ask("short", short, 1))
    seen: list[RequestOutput] = []
    while not any(output.request_id == "short" for output in seen):
        seen += core.step().outputs
    assert _tokens([output for output in seen if output.request_id == "short"]) == expected_tokens(short, 1)
    assert engine.runner.log[-1] == ("read", launched + 1)


def test_the_largest_request_that_fits_the_cache_runs() -> None:
    engine = ScriptedEngine(num_blocks=10, max_model_len=64)
    prompt = random_prompt(30)
    assert _tokens(_run(engine, ask("r", prompt, 11))["r"]) == expected_tokens(prompt, 11)


def test_a_lost_block_is_reported_once_when_idle(caplog: pytest.LogCaptureFixture) -> None:
    engine = ScriptedEngine()
    engine.pool.start(BlockTable(), 1, CachedPrefix(0, ([],)))
    for name in ("a", "b"):
        engine.core.add(ask(name, [1, 2], 2))
        with caplog.at_level(logging.ERROR):
            run_to_end(engine.core)
    assert caplog.text.count("1 of 64 key/value blocks are held by no request") == 1
