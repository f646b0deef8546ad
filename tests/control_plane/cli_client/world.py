"""What happens around the command while it waits: instances move on, a machine offers itself, an engine answers."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from sqlmodel import Session, select
from starlette.requests import Request
from starlette.responses import Response

from control_plane.context import Context
from control_plane.downloads.tables import Download, DownloadState
from control_plane.instances.lifecycle import Phase, transition
from control_plane.instances.replicas import new_replicas
from control_plane.instances.tables import Instance, Replica
from control_plane.providers.base import HardwareOffer, ReplicaSpec, ReplicaState, ReplicaStatus
from tests.support.clock import FakeClock

_ONE_INSTANCE = re.compile(r"/api/v1/instances/([0-9a-f-]{36})")

#: One thing that happens to an instance.
Step = Callable[[Session, Instance], None]


@dataclass
class Machine:
    """A provider with one offer and one log. Nothing runs here: reconcilers, which would start it, are not part."""

    log: str = ""
    name: str = "local"

    def offers(self) -> list[HardwareOffer]:
        return [
            HardwareOffer(
                id="local-cpu",
                provider=self.name,
                name="2 cores",
                accelerator="cpu",
                accelerator_count=0,
                memory_bytes=8 << 30,
                price_per_hour=0.5,
                available=True,
            )
        ]

    def create(self, spec: ReplicaSpec) -> ReplicaStatus:
        return ReplicaStatus(spec.name, ReplicaState.ABSENT)

    def find(self, name: str) -> ReplicaStatus:
        return ReplicaStatus(name, ReplicaState.ABSENT)

    def list_owned(self) -> list[ReplicaStatus]:
        return []

    def delete(self, name: str, *, grace_s: float) -> None:
        pass

    def logs(self, name: str, *, tail_bytes: int) -> str:
        assert name.startswith("slipway-")
        return self.log[-tail_bytes:]

    def follow_logs(self, name: str, *, offset: int) -> Iterator[tuple[int, str]]:
        assert name.startswith("slipway-")
        begin = max(0, len(self.log) + offset) if offset < 0 else offset
        yield len(self.log), self.log[begin:]


@dataclass
class Story:
    """Steps that happen one by one, each just before somebody looks at an instance: no clock decides what is seen."""

    context: Context
    clock: FakeClock
    steps: list[Step] = field(default_factory=list)

    def tell(self, *steps: Step) -> None:
        """Add to what will happen."""
        self.steps.extend(steps)

    def happen(self, instance_id: UUID) -> None:
        """The next step."""
        if not self.steps:
            return
        step = self.steps.pop(0)
        self.clock.advance(1)
        with self.context.database.transaction() as session:
            step(session, session.exec(select(Instance).where(Instance.id == instance_id)).one())

    def install(self, app: FastAPI) -> FastAPI:
        """Make ``app`` tell this story."""

        @app.middleware("http")
        async def _tell(request: Request, call_next: Callable[[Request], Any]) -> Response:
            looked_at = _ONE_INSTANCE.fullmatch(request.url.path)
            if looked_at and request.method == "GET":
                await run_in_threadpool(self.happen, UUID(looked_at[1]))
            response: Response = await call_next(request)
            return response

        return app

    def move(self, to: Phase, reason: str = "so it goes", next_step: str | None = None) -> Step:
        """The instance changes its phase."""

        def step(session: Session, instance: Instance) -> None:
            transition(session, self.clock, instance, to, reason=reason, next_step=next_step, actor="system:test")
            if to == Phase.TERMINATED:
                instance.terminated_at = self.clock.now()

        return step

    def download(self, done: int, total: int, *, rate: float = 1e6, reason: str | None = None) -> Step:
        """The weights have come this far."""

        def step(session: Session, instance: Instance) -> None:
            now = self.clock.now()
            row = session.get(Download, instance.download_id) if instance.download_id else None
            if row is None:
                row = Download(
                    endpoint="https://hub.example",
                    model=instance.model,
                    commit_sha="0" * 40,
                    state=DownloadState.DOWNLOADING,
                    created_at=now,
                    queued_at=now,
                )
                session.add(row)
                session.flush()
                instance.download_id = row.id
            if instance.phase != Phase.DOWNLOADING:
                self.move(Phase.DOWNLOADING)(session, instance)
            row.bytes_done, row.bytes_total, row.bytes_per_s, row.reason = done, total, rate, reason
            row.started_at = row.progress_at = now

        return step

    def engine_at(self, url: str) -> Step:
        """The instance runs, and its engine is at ``url``."""

        def step(session: Session, instance: Instance) -> None:
            for phase in (Phase.PROVISIONING, Phase.STARTING, Phase.RUNNING):
                self.move(phase)(session, instance)
            (replica,) = new_replicas(instance, (), 1, self.clock.now())
            replica.url, replica.ready, replica.ready_at = url, True, self.clock.now()
            session.add(replica)

        return step

    def renew(self, **columns: Any) -> Step:
        """Its one engine is replaced by one that the instance wants now; or this is what becomes of it instead."""

        def step(session: Session, instance: Instance) -> None:
            for replica in session.exec(select(Replica).where(Replica.instance_id == instance.id)):
                replica.generation, replica.ready = instance.generation, True
                for name, value in columns.items():
                    setattr(replica, name, value)

        return step


@dataclass
class Engine:
    """What stands behind the API URL: answers chat completions with the lines it was given, and notes the requests."""

    url: str
    lines: list[str] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)

    def will_say(self, *words: str, finish_reason: str | None = "stop") -> None:
        """Prepare a stream of chunks; without ``finish_reason`` it breaks off."""
        chunks: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]} for word in words
        ]
        if finish_reason:
            chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason}]})
            chunks.append({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": len(words)}})
        self.lines = [f"data: {json.dumps(chunk)}" for chunk in chunks]
        if finish_reason:
            self.lines.append("data: [DONE]")


@contextmanager
def running_engine() -> Iterator[Engine]:
    """An HTTP server for :class:`Engine`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            engine.requests.append(json.loads(body))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for line in engine.lines:
                self.wfile.write(f"{line}\n\n".encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        engine = Engine(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield engine
        server.shutdown()
