"""The Celery processes: a worker and the scheduler."""

from __future__ import annotations

import logging
import socket
from typing import Any

from celery import signals

from control_plane.celery_app import celery_app
from control_plane.clock import SYSTEM_CLOCK
from control_plane.database import get_database
from control_plane.processes.heartbeat import Heart
from control_plane.processes.tables import ProcessKind
from control_plane.settings import Settings
from control_plane.supervisor import ready_file

#: The schedule is a few intervals: nothing of it must outlive the process, and a file could be left broken by SIGKILL.
_SCHEDULER = "celery.beat:Scheduler"
#: Each says at INFO that a sweep or a look at an engine came and went; what goes wrong they say louder.
_TALKATIVE = ("celery.app.trace", "celery.worker.strategy", "celery.beat", "httpx")


def run_worker(settings: Settings) -> None:
    """Run a worker until it is told to end."""

    def ready(**_: Any) -> None:
        ready_file.announce(settings, "worker")

    signals.worker_ready.connect(ready, weak=False)
    _quieten()
    with Heart(get_database(), SYSTEM_CLOCK, ProcessKind.WORKER) as heart:
        signals.task_prerun.connect(lambda **_: heart.note_task(), weak=False)
        celery_app.worker_main(
            [
                *("worker", "--hostname", f"worker@{socket.gethostname()}", "--loglevel", "INFO"),
                *("--without-gossip", "--without-mingle"),
            ]
        )


def run_beat(settings: Settings) -> None:
    """Run the scheduler until it is told to end."""

    def ready(**_: Any) -> None:
        ready_file.announce(settings, "scheduler")

    signals.beat_init.connect(ready, weak=False)
    _quieten()
    celery_app.conf.include = ()  # it sends the names of tasks, and need not load what they do
    with Heart(get_database(), SYSTEM_CLOCK, ProcessKind.SCHEDULER):
        celery_app.start(["beat", "--scheduler", _SCHEDULER, "--pidfile", "", "--loglevel", "INFO"])


def _quieten() -> None:
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
