"""The engine's side of the two sockets that join it to the server. Imports nothing heavy, to be there early."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import zmq

from serving_image.engine.protocol import EngineInput, EngineOutput, decode_input, encode

logger = logging.getLogger(__name__)

_LINGER_MS = 2000


class Channel:
    """The engine's side of the two sockets; the server has bound both."""

    def __init__(self, incoming: zmq.Socket[bytes], outgoing: zmq.Socket[bytes]) -> None:
        self._incoming = incoming
        self._outgoing = outgoing

    @classmethod
    @contextmanager
    def connect(cls, input_address: str, output_address: str) -> Iterator[Channel]:
        """Connect; on leaving, wait up to two seconds for the last messages to go out."""
        with zmq.Context() as context, context.socket(zmq.PULL) as incoming, context.socket(zmq.PUSH) as outgoing:
            for socket in (incoming, outgoing):
                # A slow server must not stall the step loop, nor lose a request's end.
                socket.set_hwm(0)
                socket.setsockopt(zmq.LINGER, _LINGER_MS)
            incoming.connect(input_address)
            outgoing.connect(output_address)
            yield cls(incoming, outgoing)

    def send(self, message: EngineOutput) -> None:
        self._outgoing.send(encode(message))

    def receive(self, wait_ms: int) -> Iterator[EngineInput]:
        """Every message there is, after waiting up to ``wait_ms`` for the first. Malformed ones are only logged."""
        if wait_ms and not self._incoming.poll(wait_ms):
            return
        while True:
            try:
                payload = self._incoming.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                yield decode_input(payload)
            except msgspec.DecodeError as error:
                logger.error("a message from the server cannot be decoded and is skipped: %s", error)
