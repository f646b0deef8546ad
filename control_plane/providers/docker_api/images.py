"""Bringing the serving image to the Docker host, with progress that every process of this machine can tell.

::

    create ─► there? ──yes──► go on
                │no
                ├─ nobody pulls it ─► a thread of this process does: lock held, figures in a file
                └─ somebody does, here or in another process ─► "pulling image …: 340 MB of 2.1 GB"

A lock on a file dies with its process. So a pull whose process was killed is taken up by the next ``create``; Docker
keeps the layers that were complete.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from docker.api import APIClient
from docker.errors import ImageNotFound
from docker.utils import parse_repository_tag

from control_plane.downloads.units import format_bytes
from control_plane.errors import SlipwayError
from control_plane.providers.base import ProviderError, ProviderUnavailable
from control_plane.providers.docker_api.connection import Connection

logger = logging.getLogger(__name__)

#: A pull that fails at once, because there is no such image, is told by the call that began it.
_QUICK_S = 2.0
#: For so long a failure is told to whoever asks; then it is tried again.
_FAILURE_KEPT_S = 30.0
_WRITE_EVERY_S = 0.2
#: Docker says nothing while a registry is slow to answer.
_SILENCE_S = 300.0
_FINAL_WORDS = (
    "manifest unknown",
    "not found",
    "does not exist",
    "no such image",
    "denied",
    "unauthorized",
    "invalid reference",
    "no matching manifest",
    "no image found in manifest list",
)
_NEXT_STEP = "Check SLIPWAY_DOCKER_SERVING_IMAGE; 'docker login' for a private registry; or load the image by hand."


@dataclass
class Progress:
    """Of one pull, in bytes; totals are known layer by layer."""

    layers: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, message: dict[str, Any]) -> None:
        """Take note of a message of Docker's stream."""
        layer, status = str(message.get("id", "")), str(message.get("status", ""))
        detail = message.get("progressDetail") or {}
        if status == "Downloading" and detail.get("total"):
            self.layers[layer] = int(detail.get("current", 0)), int(detail["total"])
        elif status in {"Download complete", "Pull complete"} and layer in self.layers:
            total = self.layers[layer][1]
            self.layers[layer] = total, total

    def __str__(self) -> str:
        done = sum(current for current, _ in self.layers.values())
        total = sum(total for _, total in self.layers.values())
        return f"{format_bytes(done)} of {format_bytes(total)}" if total else "asking the registry"


@dataclass(frozen=True)
class _Note:
    """What the file says: how far a pull is, or how it failed. ``at`` is Unix time."""

    words: str
    at: float
    failed: bool = False
    final: bool = False


class ImagePulls:
    """Pulls of images by the processes of this machine."""

    def __init__(self, connection: Connection, folder: Path) -> None:
        self._connection = connection
        self._folder = folder

    def waiting_for(self, client: APIClient, image: str) -> str | None:
        """What a container of ``image`` has to wait for; None if the image is there. Nobody pulling it, begin.

        :raises ProviderError: there is no such image, or it may not be had.
        :raises ProviderUnavailable: the registry does not answer.
        """
        if _present(client, image):
            return None
        self._raise_failure(image)
        if lock := self._take_lock(image):
            thread = threading.Thread(target=self._pull, args=(image, lock), name="docker-pull", daemon=True)
            thread.start()
            thread.join(_QUICK_S)
            if not thread.is_alive():
                self._raise_failure(image)
                return None
        return self.progress(image) or f"pulling image {image}"

    def progress(self, image: str) -> str | None:
        """How far the pull of ``image`` is; None if no process of this machine pulls it."""
        lock = self._take_lock(image)
        if lock is not None:
            lock.close()
            return None
        note = self._note(image)
        return f"pulling image {image}" + (f": {note.words}" if note and not note.failed else "")

    def _pull(self, image: str, lock: IO[str]) -> None:
        """The work of the thread; ``lock`` is released at its end, or with the process."""
        progress, written = Progress(), 0.0
        with lock:
            try:
                with self._connection.client(_SILENCE_S) as client:
                    self._write(image, _Note(str(progress), time.time()))
                    for message in _messages(client, image):
                        progress.add(message)
                        if time.monotonic() - written >= _WRITE_EVERY_S:
                            written = time.monotonic()
                            self._write(image, _Note(str(progress), time.time()))
                self._path(image).unlink(missing_ok=True)
            except SlipwayError as error:
                logger.warning("image %s cannot be pulled: %s", image, error.detail)
                final = isinstance(error, ProviderError) or any(word in error.detail.lower() for word in _FINAL_WORDS)
                self._write(image, _Note(error.detail, time.time(), failed=True, final=final))

    def _raise_failure(self, image: str) -> None:
        note = self._note(image)
        if note is None or not note.failed or abs(time.time() - note.at) > _FAILURE_KEPT_S:
            return
        kind = ProviderError if note.final else ProviderUnavailable
        raise kind(f"image {image} cannot be pulled: {note.words}", _NEXT_STEP)

    def _take_lock(self, image: str) -> IO[str] | None:
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = self._path(image).with_suffix(".lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            return None
        return lock

    def _path(self, image: str) -> Path:
        return self._folder / f"pull-{hashlib.sha256(image.encode()).hexdigest()[:16]}.json"

    def _note(self, image: str) -> _Note | None:
        try:
            return _Note(**json.loads(self._path(image).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def _write(self, image: str, note: _Note) -> None:
        draft = self._path(image).with_suffix(".draft")
        draft.write_text(json.dumps(asdict(note)))
        draft.replace(self._path(image))


def _present(client: APIClient, image: str) -> bool:
    try:
        client.inspect_image(image)
    except ImageNotFound:
        return False
    return True


def _messages(client: APIClient, image: str) -> Any:
    """Docker's messages about a pull.

    :raises ProviderUnavailable: one of them is an error; which kind, its words tell.
    """
    repository, tag = parse_repository_tag(image)
    for message in client.pull(repository, tag=tag or "latest", stream=True, decode=True):
        if words := message.get("error"):
            raise ProviderUnavailable(" ".join(str(words).split())[:500])
        yield message
