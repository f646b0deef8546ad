"""Celery entry points."""

from __future__ import annotations

import logging
import threading
from typing import Any
from uuid import UUID

from celery.signals import worker_shutting_down

from control_plane.celery_app import celery_app
from control_plane.context import get_context
from control_plane.downloads import agent_driver, service
from control_plane.downloads.worker import DownloadWorker

logger = logging.getLogger(__name__)

#: Downloads at once in one process; they last long, and instances need the other threads. More wait in their rows.
MAX_RUNNING = 3

_running = threading.BoundedSemaphore(MAX_RUNNING)
_shutdown = threading.Event()


def _stop_downloads(**_: Any) -> None:
    _shutdown.set()


worker_shutting_down.connect(_stop_downloads)


def run(download_id: str) -> None:
    """Take a download up, unless this process has its hands full: the sweep asks again."""
    if not _running.acquire(blocking=False):
        return
    try:
        DownloadWorker(get_context(), _shutdown).run(UUID(download_id))
    finally:
        _running.release()


def drive(download_id: str) -> None:
    """Look after the agent of a download elsewhere."""
    agent_driver.drive(get_context(), UUID(download_id))


def sweep() -> None:
    """Send hints for downloads that wait for a worker."""
    service.sweep(get_context())


celery_app.task(name=service.RUN)(run)
celery_app.task(name=service.DRIVE)(drive)
celery_app.task(name="downloads.sweep")(sweep)
