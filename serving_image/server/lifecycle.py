"""From a spawned engine to an exit status.

::

    loading ──EngineReady──► serving ──SIGTERM──► draining ──last answer sent──► engine drained ──► exit 0
       │ EngineFailed           │ engine dies        │ engine dies: exit 1
       ▼                        ▼                    ▼ second SIGTERM
     exit 2                   exit 1               exit 1 at once

A SIGTERM while the engine loads has nothing to drain: exit 0.
An engine that is stuck in a step ends itself; one that says nothing for as long is ended here. Both are deaths.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import uvicorn
import uvloop

from serving_image.engine.protocol import EngineReady
from serving_image.engine.watchdog import StallDetector, interval_of_looks
from serving_image.errors import StartupError
from serving_image.options import ServerOptions
from serving_image.server.access_log import configure_logging
from serving_image.server.app import create_app
from serving_image.server.chat_template import load_chat_template
from serving_image.server.engine_client import EngineClient
from serving_image.server.engine_process import EngineProcess
from serving_image.server.listener import base_url
from serving_image.server.metrics import Metrics
from serving_image.server.model_folder import read_generation_defaults
from serving_image.server.state import ServerState
from serving_image.server.tokenizer import Tokenizer

logger = logging.getLogger("slipway.serve")
#: What an engine said before it died may still be in the socket.
LAST_WORDS_SECONDS = 1.0
#: After its last request the engine has only to exit; clients of a dead engine have only an error to read.
EXIT_SECONDS = 10.0
#: Writing stacks takes milliseconds; a stopped process never does it.
ABORT_SECONDS = 2.0


def serve(options: ServerOptions, process: EngineProcess, folder: Path, listener: socket.socket) -> int:
    """Serve until a signal or the engine's end; returns the exit status.

    :raises StartupError: the model cannot be served as asked.
    """
    configure_logging(options.log_format)
    with process.log_relayed(logger), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(options, process, folder, listener))


async def _serve(options: ServerOptions, process: EngineProcess, folder: Path, listener: socket.socket) -> int:
    metrics = Metrics(options.served_model_name, process.process.pid)
    client = EngineClient(process.input_address, process.output_address, metrics, time.monotonic)
    try:
        return await _Lifecycle(process, _load_state(options, client, metrics, folder), listener).run()
    finally:
        process.kill()
        client.close()


def _load_state(options: ServerOptions, client: EngineClient, metrics: Metrics, folder: Path) -> ServerState:
    tokenizer = Tokenizer(folder)
    defaults = read_generation_defaults(folder)
    if tokenizer.eos_token_id is not None:
        defaults = replace(defaults, eos_token_ids=defaults.eos_token_ids | {tokenizer.eos_token_id})
    return ServerState(
        options=options,
        engine=client,
        tokenizer=tokenizer,
        chat_template=load_chat_template(folder, options.chat_template, tokenizer.special_tokens),
        defaults=defaults,
        metrics=metrics,
        clock=time.monotonic,
        now=time.time,
        new_id=lambda: uuid.uuid4().hex,
        started_at=int(time.time()),
    )


class _Server(uvicorn.Server):
    """uvicorn without its signal handling: a drain here goes on answering probes until the last request ends."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass(frozen=True)
class _Heartbeat:
    """The engine's words as progress that never ends."""

    engine: EngineClient
    has_work: bool = True

    @property
    def last_progress(self) -> float:
        return self.engine.heard_at


class _Lifecycle:
    def __init__(self, process: EngineProcess, state: ServerState, listener: socket.socket) -> None:
        self._process = process
        self._state = state
        self._listener = listener
        config = uvicorn.Config(
            create_app(state),
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        self._server = _Server(config)
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """The states of the module's diagram.

        :raises StartupError: the engine said that it cannot serve the model.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        http = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        engine_end = asyncio.create_task(self._follow_engine())
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait((engine_end, stop), return_when=asyncio.FIRST_COMPLETED)
        if not engine_end.done() and self._state.engine.ready is not None:
            drained = asyncio.create_task(self._drain(http))
            await asyncio.wait((engine_end, drained), return_when=asyncio.FIRST_COMPLETED)
            drained.cancel()
            if drained.done():
                await asyncio.wait((engine_end,), timeout=EXIT_SECONDS)
                return 0
        stop.cancel()
        if engine_end.done():
            await engine_end
            return await self._engine_is_gone(http)
        engine_end.cancel()
        await self._close(http)
        return 0

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._process.exit_now(1)
        self._state.draining = True
        self._stop.set()
        logger.info("draining", extra={"fields": {"live_sequences": self._state.engine.num_live}})

    async def _follow_engine(self) -> None:
        """Deliver what the engine says until it ends."""
        receiving = asyncio.create_task(self._receive())
        exited = asyncio.get_running_loop().run_in_executor(None, self._process.wait)
        silence = asyncio.create_task(self._end_a_silent_engine())
        try:
            await asyncio.wait((receiving, exited), return_when=asyncio.FIRST_COMPLETED)
            if not self._state.draining:
                await asyncio.wait((receiving,), timeout=LAST_WORDS_SECONDS)
            if receiving.done():
                await receiving
        finally:
            receiving.cancel()
            silence.cancel()

    async def _end_a_silent_engine(self) -> None:
        """Do what the engine's watchdog cannot while native code holds the interpreter, or the process is stopped."""
        engine, clock = self._state.engine, self._state.clock
        while engine.ready is None:
            await asyncio.sleep(1)
        timeout = engine.ready.stall_timeout
        interval = interval_of_looks(timeout)
        heartbeat = StallDetector(_Heartbeat(engine), interval, clock())
        while heartbeat.look(clock()) < timeout:
            await asyncio.sleep(interval)
        engine.lose(f"The engine has said nothing for {timeout:g} s.", "Its log above says more.")
        self._process.abort()
        await asyncio.sleep(ABORT_SECONDS)
        self._process.kill()

    async def _receive(self) -> None:
        engine = self._state.engine
        while engine.failed is None:
            message = await engine.receive()
            if isinstance(message, EngineReady):
                await engine.wait_connected()
                self._process.forget_addresses()
                logger.info("engine ready", extra={"fields": msgspec.to_builtins(message)})
                sys.stderr.write(f"ready {base_url(self._listener)}\n")
                sys.stderr.flush()

    async def _drain(self, http: asyncio.Task[None]) -> None:
        """Answer what was taken, then let the engine go."""
        await self._state.engine.wait_idle()
        await self._close(http)
        self._state.engine.drain()

    async def _engine_is_gone(self, http: asyncio.Task[None]) -> int:
        engine = self._state.engine
        refused = engine.failed is not None and engine.ready is None
        if engine.failed is not None:
            what, next_step = engine.failed.message, engine.failed.next_step
        else:
            what = f"The engine process {self._process.describe_end()}."
            next_step = "Its last lines above say more."
        engine.lose(what, next_step)
        await asyncio.wait((asyncio.create_task(self._close(http)),), timeout=EXIT_SECONDS)
        if refused:
            raise StartupError(what, next_step)
        logger.error("engine gone", extra={"fields": {"reason": what, "next_step": next_step}})
        return 1

    async def _close(self, http: asyncio.Task[None]) -> None:
        """Stop listening, and end when every answer has been sent."""
        self._server.should_exit = True
        await http
