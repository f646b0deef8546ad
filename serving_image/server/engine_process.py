"""The engine as a child process, with the two sockets' addresses and its end."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import msgspec

from serving_image.engine.process import STALLED_STATUS
from serving_image.options import EngineOptions, LogFormat


@dataclass(frozen=True)
class EngineProcess:
    """A running engine. ``input_address`` and ``output_address`` are the ipc addresses that the server binds."""

    process: subprocess.Popen[bytes]
    input_address: str
    output_address: str

    @classmethod
    @contextmanager
    def spawn(cls, module: str, options: EngineOptions, log_format: LogFormat) -> Iterator[Self]:
        """Start ``python -m module`` and kill it, if it still runs, at the end.

        Its standard error is this process's own, unless the log is JSON: then see :meth:`log_relayed`.
        Must be called from the main thread: the engine asks the kernel to be killed when the *thread* that started
        it dies. The sockets lie in a folder that only this user can enter.
        """
        folder = Path(tempfile.mkdtemp(prefix="slipway-serve-"))
        input_address, output_address = f"ipc://{folder}/input", f"ipc://{folder}/output"
        argv = [sys.executable, "-m", module, "--options", msgspec.json.encode(options).decode()]
        argv += ["--input", input_address, "--output", output_address, "--parent", str(os.getpid())]
        stderr = subprocess.PIPE if log_format == "json" else None
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=stderr)
        try:
            yield cls(process, input_address, output_address)
        finally:
            process.kill()
            process.wait()
            shutil.rmtree(folder, ignore_errors=True)

    def forget_addresses(self) -> None:
        """Remove the sockets' folder once both sides are connected, so that even a SIGKILL leaves nothing behind."""
        shutil.rmtree(Path(self.input_address.removeprefix("ipc://")).parent, ignore_errors=True)

    @contextmanager
    def log_relayed(self, logger: logging.Logger) -> Iterator[None]:
        """Log each line that the engine writes, in the logger's format; the engine must end within the block."""
        if self.process.stderr is None:
            yield
            return
        relay = threading.Thread(target=_relay, args=(self.process.stderr, logger), daemon=True)
        relay.start()
        try:
            yield
        finally:
            relay.join()

    def describe_end(self) -> str:
        """How the process ended, for a person. Call it only after the end."""
        status = self.process.wait()
        if status == STALLED_STATUS:
            return "ended itself, because it had work but no step ended in the time it has for one (--stall-timeout)"
        if status >= 0:
            return f"ended with exit status {status}"
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        hint = "; the kernel does that when memory runs out" if name == "SIGKILL" else ""
        return f"was killed by {name}{hint}"

    def wait(self) -> int:
        """Block until the process ends; returns its exit status, negative for a signal."""
        return self.process.wait()

    def kill(self) -> None:
        """End the process, if it still runs."""
        self.process.kill()

    def abort(self) -> None:
        """Have the process log the stacks of its threads and end, even if its interpreter is stuck."""
        self.process.send_signal(signal.SIGABRT)

    def exit_now(self, status: int) -> None:
        """Kill the engine and end this process at once, without any clean-up but the sockets' folder."""
        self.process.kill()
        self.forget_addresses()
        os._exit(status)


def _relay(lines: IO[bytes], logger: logging.Logger) -> None:
    for line in lines:
        logger.info("engine", extra={"fields": {"line": line.decode(errors="replace").rstrip()}})
