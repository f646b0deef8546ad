"""What ``slipway doctor`` looks at: everything the control plane needs, from the disk to the GPU."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import httpx
import redis
from sqlalchemy.exc import SQLAlchemyError

from control_plane import broker
from control_plane.errors import SlipwayError
from control_plane.providers.local_host import protocol
from control_plane.settings import Settings
from control_plane.supervisor.data_folder import find_holder

if TYPE_CHECKING:
    from control_plane.processes.schemas import WorkersView

Verdict = Literal["ok", "warn", "fail"]

_LITTLE_DISK = 10 << 30
_NO_DISK = 1 << 30
_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. ``next_step`` says what to do unless the verdict is ok."""

    what: str
    verdict: Verdict
    detail: str
    next_step: str | None = None

    def text(self) -> str:
        """For a person."""
        line = f"{self.verdict:<4}  {self.what}: {self.detail}"
        return f"{line}\n      {self.next_step}" if self.next_step else line


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything, in the order in which one thing rests on another; each finding as soon as it is there."""
    up = find_holder(settings) is not None
    yield _supervisor(settings, up)
    checks: list[Callable[[], Finding]] = [
        _packages,
        _setpriv,
        lambda: _data_folder(settings),
        lambda: _disk(settings),
        lambda: _database(settings),
        lambda: _broker(settings, up),
        lambda: _worker(up),
        lambda: _processes(settings, up),
        lambda: _unclaimed(settings, up),
        lambda: _local_host(settings, up),
        lambda: _hub(settings),
        _gpu,
    ]
    for check in checks:
        yield check()


def _supervisor(settings: Settings, up: bool) -> Finding:
    if up:
        return Finding("slipway up", "ok", f"runs on {settings.data_dir}")
    return Finding("slipway up", "warn", f"does not run on {settings.data_dir}", "Start it with 'slipway up'.")


def _without(up: bool) -> Verdict:
    """What a part that ``slipway up`` runs is worth when it is not there."""
    return "fail" if up else "warn"


def _packages() -> Finding:
    missing = []
    for requirement in importlib.metadata.requires("slipway") or []:
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if importlib.util.find_spec("torch") is None:
        missing.append("torch")
    if missing:
        return Finding("Python packages", "fail", f"missing: {', '.join(missing)}", "Run 'make setup'.")
    return Finding("Python packages", "ok", "all there")


def _setpriv() -> Finding:
    program = shutil.which("setpriv")
    if program is None:
        return Finding("setpriv", "fail", "not found", "Install util-linux; processes are started through it.")
    return Finding("setpriv", "ok", program)


def _data_folder(settings: Settings) -> Finding:
    probe = settings.data_dir / f".doctor-{uuid.uuid4().hex}"
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        return Finding(
            "data folder",
            "fail",
            f"{settings.data_dir}: {error.strerror}",
            "Make it writable, or choose another: --data.",
        )
    return Finding("data folder", "ok", str(settings.data_dir))


def _disk(settings: Settings) -> Finding:
    folder = settings.hub_cache
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    detail = f"{free / (1 << 30):.1f} GiB free for weights in {settings.hub_cache}"
    if free < _NO_DISK:
        return Finding("disk", "fail", detail, "Make room, or set HF_HOME to a larger disk.")
    if free < _LITTLE_DISK:
        return Finding("disk", "warn", detail, "Enough for small models only; HF_HOME moves the cache.")
    return Finding("disk", "ok", detail)


def _database(settings: Settings) -> Finding:
    from control_plane.migrate import is_current

    kind = settings.database_url.partition(":")[0]
    try:
        current = is_current(settings.database_url)
    except SQLAlchemyError as error:
        return Finding("database", "fail", str(error).splitlines()[0], "Check SLIPWAY_DATABASE_URL.")
    if not current:
        return Finding("database", "warn", f"{kind} is not migrated", "Run 'slipway migrate', or 'slipway up'.")
    return Finding("database", "ok", f"{kind} answers, schema is up to date")


def _broker(settings: Settings, up: bool) -> Finding:
    kind = "embedded Redis" if settings.embedded_broker else "Redis of SLIPWAY_BROKER_URL"
    if settings.embedded_broker and not up:
        try:
            program = broker.server_program()
        except SlipwayError as error:
            return Finding("broker", "fail", error.detail, error.next_step)
        return Finding("broker", "ok", f"{kind}, run by 'slipway up': {program}")
    try:
        broker.ping(settings.broker_url, _TIMEOUT_S)
    except (redis.RedisError, ValueError) as error:
        return Finding(
            "broker", "fail", f"{kind} does not answer: {error}", "Check SLIPWAY_BROKER_URL and that server."
        )
    return Finding("broker", "ok", f"{kind} answers")


def _worker(up: bool) -> Finding:
    from control_plane.celery_app import celery_app

    try:
        answers = celery_app.control.ping(timeout=1.0)
    except Exception as error:  # whatever the transport raises, it means that nobody was reached
        return Finding("worker", _without(up), f"cannot be asked: {error}", "See to the broker first.")
    if not answers:
        return Finding("worker", _without(up), "none answers", "Start 'slipway up' or 'slipway worker'; see its log.")
    return Finding("worker", "ok", ", ".join(name for answer in answers for name in answer))


def _processes(settings: Settings, up: bool) -> Finding:
    """By their own signs of life: a worker that answers a ping may take no tasks, and the other way round."""
    from control_plane.processes.schemas import ProcessState

    try:
        found = [process for process in _workers(settings).items if process.state != ProcessState.ENDED]
    except SQLAlchemyError:
        return Finding("processes", "warn", "not known without the database", "See to the database first.")
    amiss = [process for process in found if process.state != ProcessState.ALIVE]
    alive = {process.kind for process in found if process.state == ProcessState.ALIVE}
    missing = [kind for kind in ("web", "worker", "scheduler") if kind not in alive]
    if not amiss and not missing:
        return Finding("processes", "ok", f"{len(found)} alive: {', '.join(process.name for process in found)}")
    words = [process.words for process in amiss] + [f"no {kind} is alive" for kind in missing]
    next_step = (
        "Start what is missing ('slipway up', or 'slipway worker', 'beat', 'web'); see its log for why it ended."
    )
    return Finding("processes", _without(up) if missing else "warn", "; ".join(words), next_step)


def _unclaimed(settings: Settings, up: bool) -> Finding:
    try:
        waiting = _workers(settings).waiting
    except SQLAlchemyError:
        return Finding("waiting rows", "warn", "not known without the database", "See to the database first.")
    if waiting.instances or waiting.downloads:
        next_step = "Start a worker, or restart one that takes no tasks; see its log."
        return Finding("waiting rows", _without(up), waiting.words, next_step)
    return Finding("waiting rows", "ok", waiting.words)


def _workers(settings: Settings) -> WorkersView:
    from control_plane.clock import SYSTEM_CLOCK
    from control_plane.database import Database
    from control_plane.processes.service import read_workers

    database = Database(settings.database_url)
    try:
        with database.reading() as session:
            return read_workers(session, SYSTEM_CLOCK.now())
    finally:
        database.engine.dispose()


def _local_host(settings: Settings, up: bool) -> Finding:
    if "local" not in settings.providers:
        return Finding("local host", "ok", "not used: the local provider is off")
    try:
        protocol.call(settings.local_host_socket, "ping", timeout_s=_TIMEOUT_S)
    except SlipwayError as error:
        return Finding("local host", _without(up), error.detail, "'slipway up' runs it; see its log.")
    return Finding("local host", "ok", "answers")


def _hub(settings: Settings) -> Finding:
    endpoint = settings.hub_endpoint
    if settings.hub_offline:
        return Finding("model hub", "ok", "not used: HF_HUB_OFFLINE is set, models come from the cache")
    try:
        httpx.get(endpoint, timeout=_TIMEOUT_S, follow_redirects=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Finding(
            "model hub",
            "warn",
            f"{endpoint} cannot be reached: {error or type(error).__name__}",
            "Only models in the cache and the starter can be launched. Check the network, HTTPS_PROXY, HF_ENDPOINT.",
        )
    return Finding("model hub", "ok", f"{endpoint} answers")


def _gpu() -> Finding:
    program = shutil.which("nvidia-smi")
    if program is None:
        return Finding("GPU", "ok", "no NVIDIA driver; engines run on the CPU")
    argv = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        output = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(
            "GPU", "warn", f"nvidia-smi fails: {error}", "Reinstall the driver; engines run on the CPU until then."
        )
    return Finding("GPU", "ok", "; ".join(output.split("\n")).strip("; "))
