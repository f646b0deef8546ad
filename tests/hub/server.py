"""The test hub's server: repositories, tokens, recorded requests, and a listener that can die and come back."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

from tests.hub.faults import Faults
from tests.hub.handler import HubHandler
from tests.hub.repository import HubFile, HubRepository


@dataclass
class RequestRecord:
    """One request as the hub saw it; `bytes_sent` counts body bytes and grows while the body is sent."""

    method: str
    path: str
    query: str
    range: str | None
    authorization: str | None
    status: int | None = None
    file: str | None = None
    bytes_sent: int = 0

    def matches(self, pattern: str) -> bool:
        """Whether *pattern* is the file's path in its repository, or a shell pattern of the URL path."""
        return pattern == self.file or fnmatch(self.path, pattern)


class Listener(ThreadingHTTPServer):
    """The socket and its open connections, which die with it."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, hub: HubServer, port: int) -> None:
        self.hub = hub
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__((hub.host, port), HubHandler)

    def connected(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.add(connection)

    def disconnected(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that disconnects in the middle of a request is expected here; anything else is a bug to be seen."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        with self._lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:  # already closed by its client
                    continue


class HubServer:
    """A hub on loopback, a context manager: ``with HubServer() as hub: hub.add_repo("org/name", folder)``."""

    def __init__(self, port: int = 0, host: str = "127.0.0.1") -> None:
        self.host = host
        self.faults = Faults()
        self.repositories: dict[str, HubRepository] = {}
        self.tokens: dict[str, set[str]] = {}
        self.requests: list[RequestRecord] = []
        self.page_size = 1000
        self.link_key = 1
        self.cdn_host = host
        self._port = port
        self._changed = threading.Condition()
        self._listener: Listener | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self._port}"

    @property
    def cdn_url(self) -> str:
        """Where LFS files are redirected to; set `cdn_host` to another loopback name for a redirect across hosts."""
        return f"http://{self.cdn_host}:{self._port}"

    def start(self) -> HubServer:
        self._listener = Listener(self, self._port)
        self._port = self._listener.server_address[1]
        threading.Thread(target=self._listener.serve_forever, args=(0.05,), name="hub", daemon=True).start()
        return self

    def stop(self) -> None:
        """Closes the port and every connection; requests that hang are released."""
        self.faults.clear()
        if self._listener:
            self._listener.close()
            self._listener = None

    def __enter__(self) -> HubServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @contextmanager
    def dead(self) -> Iterator[None]:
        """Connections are cut and new ones refused inside the block; afterwards the hub is back on the same port."""
        if self._listener is None:
            raise RuntimeError("the hub is not running")
        self._listener.close()
        try:
            yield
        finally:
            self.start()

    def add_repo(
        self,
        repo_id: str,
        folder: Path,
        *,
        branch: str = "main",
        gated: str | bool = False,
        private: bool = False,
    ) -> str:
        """Publishes *folder* (again for the same id: adds a commit) and returns the commit's SHA.

        *gated* is False, "auto" or "manual", as in the hub's API.
        """
        repository = self.repositories.setdefault(repo_id, HubRepository(repo_id))
        repository.gated, repository.private = gated, private
        return repository.publish(folder, branch).sha

    def add_token(self, token: str, *repo_ids: str) -> None:
        """A valid token, with access to these gated or private repositories."""
        self.tokens.setdefault(token, set()).update(repo_ids)

    def expire_links(self) -> None:
        """Makes every CDN link given out so far answer 403, as signed links do after their hour."""
        self.link_key += 1

    def find_object(self, sha256: str) -> HubFile | None:
        for repository in list(self.repositories.values()):
            for commit in list(repository.commits.values()):
                for file in commit.files.values():
                    if file.sha256 == sha256:
                        return file
        return None

    def record(
        self, method: str, path: str, query: str, range_: str | None, authorization: str | None
    ) -> RequestRecord:
        record = RequestRecord(method, path, query, range_, authorization)
        with self._changed:
            self.requests.append(record)
            self._changed.notify_all()
        return record

    def count(self, record: RequestRecord, amount: int) -> None:
        with self._changed:
            record.bytes_sent += amount
            self._changed.notify_all()

    def requests_for(self, pattern: str) -> list[RequestRecord]:
        """Requests for a file (its path in the repository) or for a shell pattern of the URL path."""
        with self._changed:
            return [record for record in self.requests if record.matches(pattern)]

    def bytes_sent(self, pattern: str = "*") -> int:
        """Body bytes sent so far for a file (its path in the repository) or a shell pattern of the URL path."""
        return sum(record.bytes_sent for record in self.requests_for(pattern))

    def forget(self) -> None:
        """Empties the record of requests."""
        with self._changed:
            self.requests.clear()

    def wait_until(self, condition: Callable[[], bool], timeout: float = 30) -> None:
        """Returns as soon as *condition* holds, looked at after every chunk sent; TimeoutError after *timeout* s."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the hub did not get there within {timeout} s")
            with self._changed:
                self._changed.wait(0.05)
