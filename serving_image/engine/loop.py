"""The loop between the sockets and the core."""

from __future__ import annotations

import time

from serving_image.engine.channel import Channel
from serving_image.engine.core import EngineCore
from serving_image.engine.protocol import AbortRequests, AddRequest, Drain, EngineInput, RequestOutput, StepOutput

_HEARTBEAT_MS = 500
"""An idle engine is heard twice a second; a busy one with every step."""


def run(core: EngineCore, channel: Channel) -> None:
    """Step until the server says Drain and everything live has finished."""
    draining = False
    last_sent = time.monotonic()
    while core.has_work or not draining:
        refused: list[RequestOutput] = []
        for message in channel.receive(0 if core.has_work else _HEARTBEAT_MS):
            draining = draining or isinstance(message, Drain)
            refused += _handle(core, message, draining)
        if core.has_work:
            output = core.step()
            channel.send(StepOutput(refused + output.outputs, output.stats))
        elif refused or draining or time.monotonic() - last_sent >= _HEARTBEAT_MS / 1000:
            channel.send(StepOutput(refused, core.stats()))
        else:
            continue
        last_sent = time.monotonic()


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
