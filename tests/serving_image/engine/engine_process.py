"""The engine as the server runs it: a child process behind two real sockets that the test has bound."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import zmq

from serving_image.engine.protocol import EngineInput, EngineOutput, RequestOutput, StepOutput, decode_output, encode
from serving_image.options import EngineOptions

_TIMEOUT_MS = 120_000
_START_ENGINE_AND_WAIT = "import os, subprocess, sys; subprocess.Popen([*sys.argv[1:], str(os.getpid())]).wait()"


class EngineUnderTest:
    """``process`` is the engine, or the parent between the test and the engine."""

    def __init__(
        self, process: subprocess.Popen[str], to_engine: zmq.Socket[bytes], from_engine: zmq.Socket[bytes]
    ) -> None:
        self.process = process
        self._to_engine = to_engine
        self._from_engine = from_engine

    def send(self, message: EngineInput) -> None:
        self._to_engine.send(encode(message))

    def send_raw(self, payload: bytes) -> None:
        self._to_engine.send(payload)

    def receive(self) -> EngineOutput:
        assert self._from_engine.poll(_TIMEOUT_MS), "the engine is silent"
        return decode_output(self._from_engine.recv())

    def receive_step(self) -> StepOutput:
        message = self.receive()
        assert isinstance(message, StepOutput), message
        return message

    def collect(self, request_ids: Sequence[str]) -> dict[str, list[RequestOutput]]:
        """Outputs by request, until every one of ``request_ids`` has ended."""
        outputs: dict[str, list[RequestOutput]] = {name: [] for name in request_ids}
        open_requests = set(request_ids)
        while open_requests:
            for output in self.receive_step().outputs:
                outputs.setdefault(output.request_id, []).append(output)
                if output.finish_reason is not None:
                    open_requests.discard(output.request_id)
        return outputs


@contextmanager
def engine_process(
    model: Path, *, behind_parent: bool = False, options_json: str | None = None, **options: Any
) -> Iterator[EngineUnderTest]:
    """Start an engine and kill it at the end. With ``behind_parent``, a process between starts it."""
    settings: dict[str, Any] = {"dtype": "float32", "device": "cpu", "block_size": 16, "threads": 1}
    encoded = options_json or msgspec.json.encode(EngineOptions(model=str(model), **(settings | options))).decode()
    with tempfile.TemporaryDirectory() as folder, zmq.Context() as context:
        addresses = [f"ipc://{folder}/input", f"ipc://{folder}/output"]
        with context.socket(zmq.PUSH) as to_engine, context.socket(zmq.PULL) as from_engine:
            to_engine.setsockopt(zmq.LINGER, 0)
            to_engine.bind(addresses[0])
            from_engine.bind(addresses[1])
            argv = [sys.executable, "-m", "serving_image.engine", "--options", encoded]
            argv += ["--input", addresses[0], "--output", addresses[1], "--parent"]
            argv = [sys.executable, "-c", _START_ENGINE_AND_WAIT, *argv] if behind_parent else [*argv, str(os.getpid())]
            process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
            try:
                yield EngineUnderTest(process, to_engine, from_engine)
            finally:
                process.kill()
                process.communicate()
