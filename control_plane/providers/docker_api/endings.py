"""Ending containers: a worker asks and goes on; a thread waits, kills what does not end, and removes.

::

    delete ─► SIGTERM, the deadline noted in a file ─► thread: wait ─► SIGKILL at the deadline ─► log copied ─► removed
                                                         └─ its process is killed: the lock on the file is free, and the
                                                            next delete waits on, to the same deadline

SIGTERM is sent once: to ``slipway-serve`` a second one means "now".
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from docker.api import APIClient
from docker.errors import APIError
from requests import RequestException

from control_plane.errors import SlipwayError
from control_plane.providers.docker_api.connection import Connection, is_gone, status_of
from control_plane.providers.docker_api.state import Container

logger = logging.getLogger(__name__)

Remove = Callable[[APIClient, Container], None]


class Endings:
    """Ends containers. ``remove`` does away with one that has ended."""

    def __init__(self, connection: Connection, remove: Remove) -> None:
        self._connection = connection
        self._remove = remove

    def begin(self, client: APIClient, container: Container, folder: Path, grace_s: float) -> None:
        """Begin to end ``container``, or go on with it; returns at once. ``folder`` is the replica's own.

        :raises ProviderError: Docker refuses.
        """
        lock = _take_lock(folder)
        if lock is None:
            return  # a thread is on it
        try:
            deadline = self._deadline(client, container, folder, grace_s)
            arguments = (container, lock, deadline)
            threading.Thread(target=self._finish, args=arguments, name="docker-ending", daemon=True).start()
        except BaseException:
            lock.close()
            raise

    def _deadline(self, client: APIClient, container: Container, folder: Path, grace_s: float) -> float:
        """When its time is up, on the monotonic clock. The first time it is told to end."""
        path, now = folder / "docker-ending.json", time.time()
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            note = json.loads(path.read_text())
            if note["container"] == container.id:
                # A clock that was moved must neither cut the time short for ever nor lengthen it.
                return time.monotonic() + min(max(0.0, float(note["deadline"]) - now), grace_s)
        signal_container(client, container, signal.SIGTERM)
        try:
            path.write_text(json.dumps({"container": container.id, "deadline": now + grace_s}))
        except OSError as error:  # a full disk must not keep it from ending
            logger.warning("the deadline of %s is not noted: %s", container.name, error)
        return time.monotonic() + grace_s

    def _finish(self, container: Container, lock: IO[str], deadline: float) -> None:
        """The work of the thread; ``lock`` is released at its end, or with the process."""
        with lock:
            try:
                remaining = max(0.0, deadline - time.monotonic())
                with self._connection.client(remaining + 30) as client:
                    if not _ended(client, container, remaining):
                        signal_container(client, container, signal.SIGKILL)
                        _ended(client, container, 10.0)
                    self._remove(client, container)
            except SlipwayError as error:
                logger.warning("%s is not removed yet: %s", container.name, error.detail)


def signal_container(client: APIClient, container: Container, number: signal.Signals) -> None:
    """Send a signal; one to what does not run, or is gone, is fine."""
    try:
        client.kill(container.id, number.name)
    except APIError as error:
        if not is_gone(error) and status_of(error) != 409:  # 409: it does not run
            raise


def _ended(client: APIClient, container: Container, timeout_s: float) -> bool:
    """Whether it ends within ``timeout_s`` seconds."""
    try:
        client.wait(container.id, timeout=max(timeout_s, 0.01))
    except RequestException:
        return False  # no answer by then
    except APIError as error:
        if not is_gone(error):
            raise
    return True


def _take_lock(folder: Path) -> IO[str] | None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = (folder / "docker-ending.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    return lock
