"""An image registry that answers pulls (OCI distribution), as slowly as a test wants."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any
from uuid import uuid4

_DROP = 1 << 12


@dataclass
class Registry:
    """One that runs at ``address``; it has one image, named ``image``, which no daemon has seen before.

    The layer's second half trickles, for a minute, until ``open_gate`` was called: daemons tell of a pull's progress
    only while something arrives.
    """

    address: str
    layer: bytes
    repository: str = field(default_factory=lambda: f"tests/{uuid4().hex}")
    requests: list[str] = field(default_factory=list)
    _gate: threading.Event = field(default_factory=threading.Event)

    @property
    def image(self) -> str:
        """The image's full name."""
        return f"{self.address}/{self.repository}:1"

    def open_gate(self) -> None:
        """Let the rest of the layer go."""
        self._gate.set()

    def pause(self) -> bool:
        """A moment, as long as the gate is closed; whether it is."""
        return not self._gate.wait(0.05)


@contextmanager
def running_registry(address: str, programs: Mapping[str, bytes], *, ballast: int = 8 << 20) -> Iterator[Registry]:
    """Serve at ``address`` (host and port) an image of ``programs`` by path, and ``ballast`` random bytes."""
    host, _, port = address.rpartition(":")
    registry = Registry(address, _layer(programs, ballast))
    documents = _documents(registry.layer)
    handler = type("Handler", (_Handler,), {"registry": registry, "documents": documents})
    with ThreadingHTTPServer((host, int(port)), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield registry
        finally:
            registry.open_gate()
            server.shutdown()
            thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry: Registry
    documents: Mapping[str, tuple[str, bytes]]

    def log_message(self, format: str, *args: object) -> None:
        self.registry.requests.append(format % args)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        if path in {"/v2/", "/v2"}:
            self._send(200, "application/json", b"{}", with_body)
            return
        found = self.documents.get(path.rpartition("/")[2])
        if found is None or not path.startswith(f"/v2/{self.registry.repository}/"):
            body = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
            self._send(404, "application/json", json.dumps(body).encode(), with_body)
            return
        self._send(200, *found, with_body)

    def _send(self, status: int, kind: str, body: bytes, with_body: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Docker-Content-Digest", _digest(body))
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.end_headers()
        if not with_body:
            return
        half = len(body) // 2 if body is self.registry.layer else 0
        try:
            self.wfile.write(body[:half])
            while half and half < len(body) and self.registry.pause():
                self.wfile.write(body[half : half + _DROP])
                half += _DROP
            self.wfile.write(body[half:])
        except ConnectionError:
            self.close_connection = True  # whoever pulled is gone


def _layer(programs: Mapping[str, bytes], ballast: int) -> bytes:
    with open("/dev/urandom", "rb") as file:
        files = {**programs, "ballast": file.read(ballast)}
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, BytesIO(content))
    return gzip.compress(archive.getvalue(), 1)


def _documents(layer: bytes) -> dict[str, tuple[str, bytes]]:
    """Manifest, configuration and layer by tag and digest, each with its type."""
    configuration: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [_digest(gzip.decompress(layer))]},
    }
    config = json.dumps(configuration).encode()
    docker = "application/vnd.docker"
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{docker}.distribution.manifest.v2+json",
        "config": {"mediaType": f"{docker}.container.image.v1+json", "size": len(config), "digest": _digest(config)},
        "layers": [{"mediaType": f"{docker}.image.rootfs.diff.tar.gzip", "size": len(layer), "digest": _digest(layer)}],
    }
    body = json.dumps(manifest).encode()
    kind = str(manifest["mediaType"])
    return {
        "1": (kind, body),
        _digest(body): (kind, body),
        _digest(config): ("application/octet-stream", config),
        _digest(layer): ("application/octet-stream", layer),
    }


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
