"""The Celery processes: a worker and the scheduler."""

from __future__ import annotations

import socket
from typing import Any

from celery import signals

from control_plane.celery_app import celery_app
from control_plane.settings import Settings
from control_plane.supervisor import ready_file

#: The schedule is a few intervals: nothing of it must outlive the process, and a file could be left broken by SIGKILL.
_SCHEDULER = "celery.beat:Scheduler"


def run_worker(settings: Settings) -> None:
    """Run a worker until it is told to end."""

    def ready(**_: Any) -> None:
        ready_file.announce(settings, "worker")

    signals.worker_ready.connect(ready, weak=False)
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
    celery_app.start(["beat", "--scheduler", _SCHEDULER, "--pidfile", "", "--loglevel", "INFO"])
