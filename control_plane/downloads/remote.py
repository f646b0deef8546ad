"""A file's bytes from the hub: one range a request, at a pinned commit, with every answer judged."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

import httpx

from control_plane.downloads.failures import FinalFailure, TransientFailure
from control_plane.downloads.retry import parse_retry_after
from control_plane.hub.hosts import HubHosts
from control_plane.hub.source import RepositoryFile

MAX_REDIRECTS = 5
#: Statuses that may pass: the server is busy, restarting, or wants us to be slower.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 524, 529})


@dataclass(frozen=True)
class Repository:
    """A model at one commit of a hub. The token goes to ``endpoint`` alone."""

    endpoint: str
    model: str
    commit_sha: str
    token: str | None = field(default=None, repr=False)

    def url(self, path: str) -> str:
        """Where the hub gives out a file, or the address of its storage."""
        return f"{self.endpoint}/{self.model}/resolve/{self.commit_sha}/{quote(path)}"


def may_follow(endpoint: str, origin: str, target: str) -> bool:
    """Whether a hub may send us from ``origin`` to ``target``.

    Large files live with a storage service, which a hub names in a redirect. One that is known by its certificate may
    name any https host: its word can be trusted, and the checksum is verified in the end. A plain http hub is known by
    nothing, so it may name only itself. Nothing goes from https to http.
    """
    at, to = urlsplit(origin), urlsplit(target)
    if to.username or to.password or not to.hostname:
        return False
    if at.scheme == "https" and urlsplit(endpoint).scheme == "https":
        return to.scheme == "https"
    return HubHosts(endpoint).allows(target)


class RemoteFiles:
    """Ranges of a repository's files. Remembers where redirects led, so that the hub itself is asked once per file."""

    def __init__(self, client: httpx.AsyncClient, repository: Repository) -> None:
        self._client = client
        self._repository = repository
        self._hosts = HubHosts(repository.endpoint)
        self._links: dict[str, str] = {}

    async def stream(self, file: RepositoryFile, start: int, stop: int) -> AsyncGenerator[bytes]:
        """Bytes ``start`` to ``stop`` (exclusive) of ``file``, as they arrive.

        :raises TransientFailure: no answer, a broken one, or one that asks to come back later.
        :raises FinalFailure: refused, missing, or not the file that was listed.
        """
        try:
            response = await self._open(file, start, stop)
            try:
                async for chunk in response.aiter_raw():
                    yield chunk
            finally:
                await response.aclose()
        except httpx.TimeoutException:
            raise TransientFailure(f"{self._repository.endpoint} has fallen silent") from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise FinalFailure(f"{file.path} has no valid address: {error}", "Check HF_ENDPOINT.") from None
        except httpx.TransportError as error:
            what = str(error) or type(error).__name__
            raise TransientFailure(f"the connection to {self._repository.endpoint} failed ({what})") from None

    async def _open(self, file: RepositoryFile, start: int, stop: int) -> httpx.Response:
        home = self._repository.url(file.path)
        url = self._links.get(file.path, home)
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._client.send(self._request(url, file, start, stop, at_home=url == home), stream=True)
            try:
                self._judge(response, file, start, stop, at_home=url == home)
                if not response.has_redirect_location:
                    if url != home:
                        self._links[file.path] = url
                    return response
            except BaseException:
                self._links.pop(file.path, None)
                await response.aclose()
                raise
            await response.aclose()
            target = str(response.url.join(response.headers["Location"]))
            if not may_follow(self._repository.endpoint, url, target):
                raise FinalFailure(
                    f"the hub redirected {file.path} to {urlsplit(target).netloc!r}, which it may not send us to",
                    "Use a hub that is reached by https, or one that serves its files itself; check HF_ENDPOINT.",
                )
            url = target
        raise FinalFailure(f"the hub redirected {file.path} more than {MAX_REDIRECTS} times", "Check HF_ENDPOINT.")

    def _request(self, url: str, file: RepositoryFile, start: int, stop: int, *, at_home: bool) -> httpx.Request:
        headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        if at_home:  # a storage service has ETags of its own
            headers["If-Range"] = f'"{file.etag}"'
        if self._repository.token and self._hosts.may_see_token(url):
            headers["Authorization"] = f"Bearer {self._repository.token}"
        return self._client.build_request("GET", url, headers=headers)

    def _judge(self, response: httpx.Response, file: RepositoryFile, start: int, stop: int, *, at_home: bool) -> None:
        """Return if the answer is a redirect or the bytes that were asked for."""
        if at_home and response.status_code < 400:
            etag = response.headers.get("X-Linked-Etag") or response.headers.get("ETag") or file.etag
            if etag.removeprefix("W/").strip('"') != file.etag:
                raise FinalFailure(f"{file.path} is not the file that the hub listed", "Launch again.")
        if response.has_redirect_location:
            return
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise FinalFailure(f"the hub compresses {file.path}, unasked", "Check HF_ENDPOINT and proxies.")
        if response.status_code == 206:
            if response.headers.get("Content-Range") != f"bytes {start}-{stop - 1}/{file.size}":
                raise FinalFailure(f"the hub sent another part of {file.path} than was asked for", "Check HF_ENDPOINT.")
            return
        if response.status_code == 200:
            if (start, stop) != (0, file.size):
                raise FinalFailure(f"the hub does not serve ranges of {file.path}", "Check HF_ENDPOINT and proxies.")
            return
        raise self._passing(response, file, at_home=at_home) or self._refusal(response, file)

    def _passing(self, response: httpx.Response, file: RepositoryFile, *, at_home: bool) -> TransientFailure | None:
        """The failure of an error status, if waiting or a fresh storage link can help."""
        status, endpoint = response.status_code, self._repository.endpoint
        retry_after_s = parse_retry_after(response.headers.get("Retry-After"), datetime.now(UTC))
        if status == 429:
            return TransientFailure(
                f"{endpoint} asks for fewer requests",
                "Launch again in some minutes; a token (HF_TOKEN) raises the limit.",
                retry_after_s=retry_after_s,
            )
        if status in _PASSING:
            return TransientFailure(f"{endpoint} answered with status {status}", retry_after_s=retry_after_s)
        if not at_home and 400 <= status < 500:
            return TransientFailure(f"the storage link of {file.path} is no longer valid (status {status})")
        return None

    def _refusal(self, response: httpx.Response, file: RepositoryFile) -> FinalFailure:
        status, endpoint, model = response.status_code, self._repository.endpoint, self._repository.model
        code = response.headers.get("X-Error-Code")
        if code == "GatedRepo":
            token = "has not let this token in" if self._repository.token else "was not sent a token"
            return FinalFailure(
                f"{model} is gated: its authors ask for their terms to be accepted, and the hub {token}",
                f"Accept the terms at {endpoint}/{model}, set a token of that account (HF_TOKEN), and launch again.",
            )
        if code in {"RepoNotFound", "RevisionNotFound"} or status == 404:
            what = f"{file.path} of {model}" if code == "EntryNotFound" else model
            return FinalFailure(
                f"{endpoint} no longer has {what} at commit {self._repository.commit_sha[:12]}, or hides it",
                "Check that the model is still there; if it is private, set a token that may read it (HF_TOKEN).",
            )
        if status in {401, 403}:
            return FinalFailure(
                f"{endpoint} refuses to hand out {model} (status {status})",
                "Set a valid token (HF_TOKEN) that may read this model, or none for a public one.",
            )
        return FinalFailure(f"{endpoint} answered {file.path} with status {status}", "Check HF_ENDPOINT.")
