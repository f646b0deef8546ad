"""One HTTP request to the test hub: routes, access, ranges, and the faults in between."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.hub.faults import Fault
from tests.hub.repository import Commit, HubFile, HubRepository, tree_entry

if TYPE_CHECKING:
    from tests.hub.server import Listener, RequestRecord

# A repository id is one segment (legacy) or two; lazily, so that "gpt2/tree/main" is the tree of "gpt2".
API = re.compile(
    r"/api/models/(?P<id>[^/]+(?:/[^/]+)??)"
    r"(?:/(?P<verb>revision|tree|paths-info|refs)(?:/(?P<revision>[^/]+)(?:/(?P<prefix>.*))?)?)?"
)
RESOLVE = re.compile(r"/(?P<id>[^/]+(?:/[^/]+)??)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
CDN = re.compile(r"/cdn/(?P<sha256>[0-9a-f]{64})/(?P<name>.+)")
RANGE = re.compile(r"bytes=(?P<first>\d*)-(?P<last>\d*)")


class Refusal(Exception):
    """An answer that is an error of the hub's API."""

    def __init__(self, status: int, code: str | None, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}


@dataclass
class Reply:
    """A status, headers and a body that is either bytes or a slice of a file."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    file: HubFile | None = None
    offset: int = 0
    length: int = 0

    @property
    def content_length(self) -> int:
        return self.length if self.file else len(self.body)


class HubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Listener
    record: RequestRecord

    def setup(self) -> None:
        super().setup()
        # A small send buffer keeps "bytes sent" close to "bytes received" when a client is killed.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        self.server.connected(self.connection)

    def finish(self) -> None:
        self.server.disconnected(self.connection)
        try:
            super().finish()
        except OSError:  # the client has gone, or a fault has cut the connection
            self.close_connection = True

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Silent: the recorded requests are the log."""

    def _answer(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        self.record = self.server.hub.record(
            self.command, path, url.query, self.headers.get("Range"), self.headers.get("Authorization")
        )
        fault = self.server.hub.faults.take(self.command, path)
        try:
            if fault and fault.hang_after == 0:
                self._fall_silent()
            elif fault and fault.status is not None:
                self._send(Reply(fault.status, fault.headers, fault.body), None)
            else:
                self._send(self._route(url.path, url.query, body), fault)
        except OSError:  # the client went away while it was being answered
            self.close_connection = True

    def _route(self, path: str, query: str, body: bytes) -> Reply:
        try:
            if match := API.fullmatch(path):
                return self._api({name: unquote(value or "") for name, value in match.groupdict().items()}, query, body)
            if match := CDN.fullmatch(path):
                return self._cdn(match["sha256"], query)
            if match := RESOLVE.fullmatch(path):
                return self._resolve(unquote(match["id"]), unquote(match["revision"]), unquote(match["path"]))
        except Refusal as refusal:
            return Reply(refusal.status, refusal.headers, json.dumps({"error": str(refusal)}).encode())
        return Reply(404, body=b'{"error": "Not found"}')

    # The API: metadata is public even where files are gated, as on the real hub.

    def _api(self, route: dict[str, str], query: str, body: bytes) -> Reply:
        repository, verb = self._repository(route["id"]), route["verb"]
        if verb == "refs":
            branches = [
                {"name": name, "ref": f"refs/heads/{name}", "targetCommit": sha}
                for name, sha in repository.branches.items()
            ]
            return _json({"branches": branches, "tags": [], "converts": []})
        commit = _commit(repository, route["revision"] or "main")
        if verb == "tree":
            return self._tree(repository.tree(commit, route["prefix"], recursive=_flag(query, "recursive")), query)
        if verb == "paths-info":
            return _json([tree_entry(commit.files[path]) for path in _paths(body) if path in commit.files])
        return _json(repository.model_info(commit, blobs=_flag(query, "blobs")))

    def _tree(self, entries: list[dict[str, Any]], query: str) -> Reply:
        start = int(parse_qs(query).get("cursor", ["0"])[0])
        stop = start + self.server.hub.page_size
        headers = {}
        if stop < len(entries):
            rest_of_query = "".join(f"&{key}=true" for key in ("recursive", "expand") if _flag(query, key))
            following = f"{self.server.hub.url}{urlsplit(self.path).path}?cursor={stop}{rest_of_query}"
            headers["Link"] = f'<{following}>; rel="next"'
        return _json(entries[start:stop], headers)

    # Files.

    def _resolve(self, repo_id: str, revision: str, path: str) -> Reply:
        repository = self._repository(repo_id)
        self._check_gate(repository)
        commit = _commit(repository, revision)
        file = commit.files.get(path)
        headers = {"X-Repo-Commit": commit.sha}
        if file is None:
            raise Refusal(404, "EntryNotFound", "Entry not found", headers)
        self.record.file = file.path
        if file.sha256 is None:
            return self._slice(file, headers)
        hub = self.server.hub
        link = f"{file.sha256}/{quote(repo_id)}/{quote(path)}?key={hub.link_key}&commit={commit.sha}"
        location = f"{hub.cdn_url}/cdn/{link}"
        linked = {"X-Linked-Size": str(file.size), "X-Linked-Etag": f'"{file.sha256}"', "Location": location}
        return Reply(302, headers | linked | {"Accept-Ranges": "bytes", "Vary": "Origin"})

    def _cdn(self, sha256: str, query: str) -> Reply:
        if parse_qs(query).get("key") != [str(self.server.hub.link_key)]:
            raise Refusal(403, None, "The link has expired")
        file = self.server.hub.find_object(sha256)
        if file is None:
            raise Refusal(404, None, "No such object")
        self.record.file = file.path
        # Clients take a redirect within one host to be the hub's own and look for the commit at its end.
        return self._slice(file, {"X-Repo-Commit": parse_qs(query)["commit"][0]})

    def _slice(self, file: HubFile, headers: dict[str, str]) -> Reply:
        etag = f'"{file.etag}"'
        headers |= {"ETag": etag, "Accept-Ranges": "bytes", "Content-Type": file.content_type}
        span = RANGE.fullmatch(self.headers.get("Range") or "")
        if span is None or self.headers.get("If-Range", etag) != etag or span["first"] == span["last"] == "":
            return Reply(200, headers, file=file, length=file.size)
        if span["first"]:
            first = int(span["first"])
            last = min(int(span["last"] or file.size - 1), file.size - 1)
        else:
            first, last = max(0, file.size - int(span["last"])), file.size - 1
        if first > last:
            return Reply(416, headers | {"Content-Range": f"bytes */{file.size}"})
        headers["Content-Range"] = f"bytes {first}-{last}/{file.size}"
        return Reply(206, headers, file=file, offset=first, length=last - first + 1)

    # Who may see what.

    def _token(self) -> str | None:
        scheme, _, token = (self.headers.get("Authorization") or "").partition(" ")
        if not token:
            return None
        if scheme != "Bearer" or token not in self.server.hub.tokens:
            raise Refusal(401, None, "Invalid credentials in Authorization header")
        return token

    def _repository(self, repo_id: str) -> HubRepository:
        token = self._token()
        repository = self.server.hub.repositories.get(repo_id)
        if repository is None or (repository.private and repo_id not in self.server.hub.tokens.get(token or "", ())):
            raise Refusal(404, "RepoNotFound", "Repository not found")
        return repository

    def _check_gate(self, repository: HubRepository) -> None:
        token = self._token()
        if repository.gated and repository.id not in self.server.hub.tokens.get(token or "", ()):
            status = 401 if token is None else 403
            raise Refusal(status, "GatedRepo", f"Access to model {repository.id} is restricted")

    # Bytes.

    def _send(self, reply: Reply, fault: Fault | None) -> None:
        self.record.status = reply.status
        self.send_response_only(reply.status, HTTPStatus(reply.status).phrase)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(reply.content_length))
        self.end_headers()
        if self.command == "HEAD":
            return
        if reply.file is None:
            self._write(reply.body)
        else:
            self._stream(reply, fault)

    def _stream(self, reply: Reply, fault: Fault | None) -> None:
        assert reply.file is not None
        sent = 0
        with reply.file.open() as stream:
            stream.seek(reply.offset)
            while sent < reply.length:
                limit = self.server.hub.faults.rate_for(self.record.path)
                size = min(limit.chunk if limit else 65536, reply.length - sent)
                stops = [n for n in (fault.truncate_after, fault.hang_after) if n is not None] if fault else []
                size = min([size, *(n - sent for n in stops)])
                if size <= 0:
                    return self._cut() if fault and fault.truncate_after is not None else self._fall_silent()
                if limit:
                    self.server.hub.faults.released.wait(limit.reserve(size))
                data = stream.read(size)
                if fault and fault.corrupt and sent == 0:
                    data = bytes([data[0] ^ 0xFF]) + data[1:]
                self._write(data)
                sent += len(data)
        return None

    def _write(self, data: bytes) -> None:
        self.wfile.write(data)
        self.server.hub.count(self.record, len(data))

    def _fall_silent(self) -> None:
        self.wfile.flush()
        self.server.hub.faults.released.wait()
        self._cut()

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


def _json(value: Any, headers: dict[str, str] | None = None) -> Reply:
    return Reply(200, {"Content-Type": "application/json; charset=utf-8"} | (headers or {}), json.dumps(value).encode())


def _commit(repository: HubRepository, revision: str) -> Commit:
    commit = repository.commit(revision)
    if commit is None:
        raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return commit


def _paths(body: bytes) -> list[str]:
    """The paths of a paths-info request, form-encoded or JSON."""
    text = body.decode()
    return list(json.loads(text)["paths"] if text.startswith("{") else parse_qs(text).get("paths", []))


def _flag(query: str, name: str) -> bool:
    return parse_qs(query).get(name, ["false"])[0].lower() in {"true", "1"}
