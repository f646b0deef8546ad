"""The loop between a channel and the core: what is sent, how often, and when it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import cast

from serving_image.engine.channel import Channel
from serving_image.engine.loop import run
from serving_image.engine.protocol import AbortRequests, Drain, EngineInput, EngineOutput, RequestOutput, StepOutput
from tests.serving_image.engine.scripted_runner import ScriptedEngine, ask, expected_tokens


class ScriptedChannel:
    """Gives the loop what ``script`` says at each look, and keeps what it sends with the time of sending."""

    def __init__(self, engine: ScriptedEngine, script: list[list[EngineInput]]) -> None:
        self._clock = engine.clock
        self._script = iter(script)
        self.sent: list[tuple[float, StepOutput]] = []

    def receive(self, wait_ms: int) -> Iterator[EngineInput]:
        messages = next(self._script, [Drain()])
        if not messages:
            self._clock.now += wait_ms / 1000
        yield from messages

    def send(self, message: EngineOutput) -> None:
        assert isinstance(message, StepOutput)
        self.sent.append((self._clock.now, message))

    @property
    def outputs(self) -> list[RequestOutput]:
        return [output for _, message in self.sent for output in message.outputs]


def _run(
    script: list[list[EngineInput]], prepare: Callable[[ScriptedEngine], None] = lambda _: None
) -> ScriptedChannel:
    engine = ScriptedEngine()
    prepare(engine)
    channel = ScriptedChannel(engine, script)
    run(engine.core, cast(Channel, channel), engine.clock)
    engine.check_idle()
    return channel


def _gaps(channel: ScriptedChannel) -> list[float]:
    times = [100.0, *(time for time, _ in channel.sent)]
    return [after - before for before, after in pairwise(times)]


def test_an_idle_engine_is_heard_twice_a_second() -> None:
    channel = _run([[] for _ in range(10)])
    assert channel.outputs == []
    assert len(channel.sent) >= 10
    assert max(_gaps(channel)) <= 0.5


def test_an_engine_in_a_step_of_ten_seconds_is_heard_and_takes_aborts() -> None:
    def slow(engine: ScriptedEngine) -> None:
        engine.runner.waits_before_end = 25

    # Two looks at once, then one after each wait.
    script: list[list[EngineInput]] = [[ask("slow", [1, 2], 3), ask("other", [3], 3)], [], []]
    script += [[] for _ in range(9)] + [[AbortRequests(["slow"])]]
    channel = _run(script, slow)
    assert max(_gaps(channel)) <= 0.5
    assert [(output.request_id, output.finish_reason) for output in channel.outputs if output.request_id == "slow"] == [
        ("slow", "abort")
    ]
    (aborted_at,) = [time for time, message in channel.sent if any(o.request_id == "slow" for o in message.outputs)]
    ended_at, _ = channel.sent[-1]
    assert ended_at - aborted_at > 4
    assert [token for output in channel.outputs for token in output.token_ids] == expected_tokens([3], 3)


def test_steps_are_sent_even_if_they_yield_no_token_yet_but_launching_is_not() -> None:
    channel = _run([[ask("r", list(range(40)), 2)]])
    sent = [(message.stats.batch_tokens, len(message.outputs)) for _, message in channel.sent]
    assert [entry for entry in sent if entry[0]] == [(16, 0), (16, 0), (8, 1), (1, 1)]


def test_a_refusal_is_sent_at_once() -> None:
    channel = _run([[ask("bad", [], 2)]])
    assert [(output.request_id, output.finish_reason) for output in channel.outputs] == [("bad", "error")]


def test_draining_ends_what_is_live_and_refuses_what_comes() -> None:
    channel = _run([[ask("before", [1, 2], 5), Drain(), ask("after", [1, 2], 5)]])
    by_request = {output.request_id: output for output in channel.outputs}
    assert by_request["before"].finish_reason == "length"
    assert by_request["after"].finish_reason == "error"
    assert "shutting down" in (by_request["after"].error or "")
