"""A stand-in for ``slipway-serve`` in tests: its flags, its routes, and faults that the model folder asks for.

``behaviour.json`` in the model folder may hold ``exit_code`` and ``message`` (fail at once), ``ignore_sigterm``,
``drains`` (SIGTERM ends it when no request is in flight any more), ``allocate_bytes``,
``helper`` (start a child process that writes its pid to this path), ``print_environment``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    key = ""
    boot_id = ""
    in_flight = 0
    ballast = bytearray()

    def log_message(self, format: str, *args: object) -> None:
        print(format % args, flush=True)

    def do_GET(self) -> None:
        authorised = self.headers.get("Authorization") == f"Bearer {self.key}"
        if self.path.startswith("/v1/") and not authorised:
            self._answer(401, {"error": {"message": "wrong key"}})
        else:
            self._answer(200, {"path": self.path})

    def do_POST(self) -> None:
        _Handler.in_flight += 1
        try:
            self._complete()
        finally:
            _Handler.in_flight -= 1

    def _complete(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("Authorization") != f"Bearer {self.key}":
            self._answer(401, {"error": {"message": "wrong key"}})
        elif not body.get("stream"):
            if body.get("die_after") == 0:
                os._exit(9)
            if self._client_stays(float(body.get("think_s", 0))):
                self._answer(200, {"model": body["model"], "received": body})
        else:
            self._stream(body)

    def _client_stays(self, think_s: float) -> bool:
        """Think; False when the client hangs up meanwhile."""
        self.connection.settimeout(think_s or 0.001)
        try:
            gone = self.connection.recv(1) == b""
        except TimeoutError:
            return True
        if gone:
            print("client disconnected", flush=True)
            self.close_connection = True
        return not gone

    def _stream(self, body: dict[str, object]) -> None:
        """One event per tenth of a second, ``max_tokens`` of them, or until the client is gone."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for number in range(int(str(body.get("max_tokens", 3)))):
                self._chunk(f'data: {{"token": {number}}}\n\n')
                if number == body.get("die_after"):
                    os._exit(9)
                time.sleep(0.1)
            self._chunk("data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")
        except ConnectionError:
            print("client disconnected", flush=True)
            self.close_connection = True

    def _chunk(self, text: str) -> None:
        self.wfile.write(f"{len(text):x}\r\n{text}\r\n".encode())
        self.wfile.flush()

    def _answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-boot-id", self.boot_id)
        self.end_headers()
        self.wfile.write(body)


def _end_when_idle() -> None:
    print("draining", flush=True)
    while _Handler.in_flight:
        time.sleep(0.05)
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    for name in ("host", "api-key-file", "served-model-name", "boot-id", "device", "max-model-len", "quantization"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    file = options.model / "behaviour.json"
    behaviour = json.loads(file.read_text()) if file.exists() else {}
    if behaviour.get("print_environment"):
        print(json.dumps(dict(os.environ)), flush=True)
    if "exit_code" in behaviour:
        print(behaviour["message"], file=sys.stderr, flush=True)
        sys.exit(behaviour["exit_code"])
    _Handler.ballast = bytearray(b"x") * behaviour.get("allocate_bytes", 0)
    if "helper" in behaviour:
        helper = subprocess.Popen(["sleep", "600"])
        Path(behaviour["helper"]).write_text(str(helper.pid))
    if behaviour.get("ignore_sigterm"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif behaviour.get("drains"):
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=_end_when_idle).start())
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    _Handler.key = Path(options.api_key_file).read_text().strip()
    _Handler.boot_id = options.boot_id or ""
    ThreadingHTTPServer.allow_reuse_address = True
    ThreadingHTTPServer.daemon_threads = True
    server = ThreadingHTTPServer((options.host, options.port), _Handler)
    print(f"ready http://{options.host}:{options.port}", file=sys.stderr, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
