"""An imaginary place over HTTP, shared by several processes: its provider's calls, its faults, and its engines.

    python -m control_plane.providers.fake.server --port 8900

::

    /api/offers, /api/replicas[/NAME[/log]]   what the provider asks (remote.py)
    /replicas/NAME/…                          what the replica NAME answers (engine.py)
    PUT /faults, POST /events/EVENT           what goes wrong (faults.py), what happens (the methods of Place)

It listens on a loopback address only: whoever reaches it may do everything.
"""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import TypeAdapter, ValidationError, validate_call

from control_plane.errors import SlipwayError
from control_plane.providers.base import (
    FetchSpec,
    HardwareOffer,
    ProviderError,
    ProviderUnavailable,
    ReplicaSpec,
    ReplicaStatus,
)
from control_plane.providers.fake import engine
from control_plane.providers.fake.calls import LocalCalls
from control_plane.providers.fake.faults import Faults
from control_plane.providers.fake.hardware import CPU, GPU
from control_plane.providers.fake.place import Place
from control_plane.providers.fake.records import EnginePlan

HOST = "127.0.0.1"
_MAX_BODY = 1 << 20
_SPEC: TypeAdapter[ReplicaSpec | FetchSpec] = TypeAdapter(ReplicaSpec | FetchSpec)
_STATUS = TypeAdapter(ReplicaStatus)
_STATUSES = TypeAdapter(list[ReplicaStatus])
_OFFERS = TypeAdapter(list[HardwareOffer])
_FAULTS = TypeAdapter(Faults)


class FakeServer(ThreadingHTTPServer):
    """Publishes ``place`` at ``url``."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, place: Place, port: int) -> None:
        super().__init__((HOST, port), _Handler)
        self.place, self.calls = place, LocalCalls(place)
        self.url = place.base_url = f"http://{HOST}:{self.server_address[1]}"
        events = (
            *(place.advance, place.exit, place.forget_everything, place.hang, place.lose_node),
            *(place.plan_engine, place.preempt, place.return_node),
        )
        self.events: dict[str, Callable[..., None]] = {event.__name__: validate_call(event) for event in events}


@contextmanager
def serving(place: Place, port: int = 0) -> Iterator[FakeServer]:
    """Publish ``place`` from a thread of this process; port 0 takes a free one."""
    with FakeServer(place, port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FakeServer

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the faults are the only thing worth a line, and the caller sees them."""

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def _handle(self) -> None:
        address = urlsplit(self.path)
        parts = [unquote(part) for part in address.path.strip("/").split("/")]
        try:
            body = self._body()
            if parts[0] == "replicas" and len(parts) > 2:
                self._engine(parts[1], "/" + "/".join(parts[2:]), body)
                return
            query = {key: values[-1] for key, values in parse_qs(address.query).items()}
            self._send(HTTPStatus.OK, self._call((self.command, *parts), query, body))
        except ProviderUnavailable:
            self.close_connection = True  # no answer comes, as with a real one
        except SlipwayError as error:
            answer = {"code": error.code, "detail": error.detail, "next_step": error.next_step}
            self._send(HTTPStatus.UNPROCESSABLE_ENTITY, answer)
        except (ValidationError, ValueError, KeyError, TypeError) as error:
            answer = {"code": ProviderError.code, "detail": str(error), "next_step": "Send what server.py describes."}
            self._send(HTTPStatus.BAD_REQUEST, answer)

    def _call(self, route: tuple[str, ...], query: dict[str, str], body: Any) -> Any:
        calls, place = self.server.calls, self.server.place
        answer: Any = None
        match route:
            case ("GET", "api", "offers"):
                answer = _OFFERS.dump_python(calls.offers(), mode="json")
            case ("POST", "api", "replicas"):
                answer = _STATUS.dump_python(calls.create(_SPEC.validate_python(body)), mode="json")
            case ("GET", "api", "replicas"):
                answer = _STATUSES.dump_python(calls.list_owned(query["owner"]), mode="json")
            case ("GET", "api", "replicas", name):
                answer = _STATUS.dump_python(calls.find(name), mode="json")
            case ("DELETE", "api", "replicas", name):
                calls.delete(name, boot_token=query.get("boot_token"), grace_s=float(query["grace_s"]))
            case ("GET", "api", "replicas", name, "log"):
                answer = calls.read_log(name, int(query["offset"]))._asdict()
            case ("GET", "faults"):
                answer = _FAULTS.dump_python(place.faults, mode="json")
            case ("PUT", "faults"):
                place.faults = _FAULTS.validate_python(body)
            case ("POST", "events", event) if event in self.server.events:
                self.server.events[event](**body)
            case _:
                raise ProviderError(f"{route[0]} {self.path} is nothing here", "Look at server.py for what is.")
        return answer

    def _engine(self, name: str, path: str, body: Any) -> None:
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.command == "POST":
            reply = engine.post(self.server.place, name, path, key, body)
        else:
            reply = engine.get(self.server.place, name, path, key)
        if reply is None:
            self.close_connection = True
        elif reply.events is None:
            self._send(reply.status, reply.body, reply.headers)
        else:
            self._stream(reply)

    def _stream(self, reply: engine.Reply) -> None:
        try:
            self._head(reply.status, reply.headers | {"Transfer-Encoding": "chunked"})
            for event in reply.events or ():
                self.wfile.write(f"{len(event.encode()):x}\r\n{event}\r\n".encode())
            self.wfile.write(b"0\r\n\r\n")
        except ConnectionError:
            self.close_connection = True

    def _body(self) -> Any:
        length = int(self.headers.get("Content-Length") or 0)
        if length > _MAX_BODY:
            raise ProviderError("the request is larger than 1 MiB", "Send less.")
        return json.loads(self.rfile.read(length)) if length else {}

    def _send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        given = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        self._head(status, given | (headers or {}))
        self.wfile.write(data)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Connection", "close")  # so that the server's end is the end of all answers
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def main() -> None:
    """Serve a place with processors and two nodes of devices until a signal ends it."""
    parser = argparse.ArgumentParser(prog="python -m control_plane.providers.fake.server", description=__doc__)
    parser.add_argument("--port", type=int, default=8900, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--load-seconds", type=float, default=2.0, help="until an engine is ready (default: 2)")
    parser.add_argument("--answer-seconds", type=float, default=0.0, help="that each call takes (default: 0)")
    options = parser.parse_args()
    place = Place((CPU, GPU))
    place.faults.answers_take_s = options.answer_seconds
    place.default_plan = EnginePlan(ready_after_s=options.load_seconds)
    with FakeServer(place, options.port) as server:
        print(f"SLIPWAY_PROVIDERS=fake SLIPWAY_FAKE_URL={server.url}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
