"""Faults a test switches on in the hub while it runs: slow, truncated, failing, hanging, corrupt, redirected."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from fnmatch import fnmatch


@dataclass
class Fault:
    """What goes wrong, for request paths that match `path`; `times` counts down, None means until removed."""

    path: str
    methods: tuple[str, ...] = ("GET",)
    times: int | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    truncate_after: int | None = None
    hang_after: int | None = None
    corrupt: bool = False


class RateLimit:
    """A bucket shared by every connection it applies to, like the one uplink of a real server."""

    def __init__(self, bytes_per_second: float) -> None:
        self.bytes_per_second = bytes_per_second
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    def reserve(self, amount: int) -> float:
        """Seconds to wait before *amount* more bytes may leave."""
        with self._lock:
            start = max(self._free_at, time.monotonic())
            self._free_at = start + amount / self.bytes_per_second
            return start - time.monotonic()

    @property
    def chunk(self) -> int:
        """Bytes per write: about twenty writes a second, so that a low rate is smooth."""
        return max(1, min(65536, int(self.bytes_per_second / 20)))


class Faults:
    """The switches. Paths are shell patterns over the URL path (`*/model.safetensors`, `/cdn/*`, `/api/*`, `*`)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._rates: list[tuple[str, RateLimit]] = []
        self._released = threading.Event()

    def rate(self, bytes_per_second: float, path: str = "*") -> None:
        """Limits the sum of the bodies sent for *path* from now on, bodies under way included."""
        with self._lock:
            self._rates = [(pattern, limit) for pattern, limit in self._rates if pattern != path]
            self._rates.append((path, RateLimit(bytes_per_second)))

    def truncate(self, after: int, path: str = "*", times: int | None = 1) -> None:
        """Announces the full length, sends *after* bytes of the body, then drops the connection."""
        self._add(Fault(path, times=times, truncate_after=after))

    def error(
        self,
        status: int = 500,
        path: str = "*",
        times: int | None = 1,
        *,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
    ) -> None:
        """Answers *status* to the next *times* requests."""
        self._add(Fault(path, ("GET", "HEAD", "POST"), times, status, headers or {}, body))

    def redirect(self, location: str, path: str = "*", times: int | None = None) -> None:
        """Answers with a redirect to *location*, on whatever host that is."""
        self.error(302, path, times, headers={"Location": location})

    def content(self, body: bytes, path: str = "*", times: int | None = None) -> None:
        """Answers 200 with *body* in place of what is published."""
        self.error(200, path, times, body=body)

    def hang(self, path: str = "*", after: int = 0, times: int | None = None) -> None:
        """Accepts the request and falls silent: before the headers, or after that many bytes of the body."""
        self._add(Fault(path, ("GET", "HEAD", "POST"), times, hang_after=after))

    def corrupt(self, path: str = "*", times: int | None = None) -> None:
        """Flips the first byte of each body: right length and ETag, wrong checksum."""
        self._add(Fault(path, times=times, corrupt=True))

    def clear(self) -> None:
        """Ends every fault; requests that hang are dropped."""
        with self._lock:
            self._faults.clear()
            self._rates.clear()
            self._released.set()
            self._released = threading.Event()

    def take(self, method: str, path: str) -> Fault | None:
        """The fault for this request, counted down."""
        with self._lock:
            for fault in self._faults:
                if method in fault.methods and fnmatch(path, fault.path):
                    if fault.times is not None:
                        fault.times -= 1
                        if fault.times == 0:
                            self._faults.remove(fault)
                    return fault
        return None

    def rate_for(self, path: str) -> RateLimit | None:
        with self._lock:
            return next((limit for pattern, limit in self._rates if fnmatch(path, pattern)), None)

    @property
    def released(self) -> threading.Event:
        """Set when the faults of this moment are cleared."""
        with self._lock:
            return self._released

    def _add(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)
