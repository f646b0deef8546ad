"""The loop between the sockets and the core."""

from __future__ import annotations

import time
from collections.abc import Callable

from serving_image.engine.channel import Channel
from serving_image.engine.core import EngineCore
from serving_image.engine.protocol import AbortRequests, AddRequest, Drain, EngineInput, RequestOutput, StepOutput

_HEARTBEAT_SECONDS = 0.4
"""However long a step takes, the server hears from the loop at least twice a second."""


def run(core: EngineCore, channel: Channel, clock: Callable[[], float] = time.monotonic) -> None:
    """Step until the server says Drain and everything live has finished."""
    draining = False
    last_sent = clock()
    while core.has_work or not draining:
        outputs: list[RequestOutput] = []
        for message in channel.receive(0 if core.has_work else int(_HEARTBEAT_SECONDS * 1000)):
            draining = draining or isinstance(message, Drain)
            outputs += _handle(core, message, draining)
        step = core.step(_HEARTBEAT_SECONDS)
        outputs += step.outputs
        if outputs or step.stats.batch_tokens or clock() - last_sent >= _HEARTBEAT_SECONDS:
            channel.send(StepOutput(outputs, step.stats))
            last_sent = clock()


def _handle(core: EngineCore, message: EngineInput, draining: bool) -> list[RequestOutput]:
    """Act on one message; the outputs are those of requests that it ends."""
    if isinstance(message, AbortRequests):
        return core.abort(message.request_ids)
    if isinstance(message, AddRequest):
        if draining:
            return [RequestOutput(message.request_id, [], "error", "The server is shutting down. Try again later.")]
        refused = core.add(message)
        return [] if refused is None else [refused]
    return []
