"""The agent's side of the line to the control plane: HTTPS with a checked certificate, no redirects, small answers."""

from __future__ import annotations

import ipaddress
import json
import os
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from control_plane.agent.protocol import Job, MalformedAnswer, Report

#: A file with certificates (PEM) that the control plane's own is checked against, in place of the system's.
CA_FILE = "SLIPWAY_AGENT_CA_FILE"
#: The job of a model with 10,000 files is smaller.
_LARGEST_ANSWER = 8 << 20


class BadSetup(Exception):
    """The agent cannot work as it was started; says what to change."""


class NotWanted(Exception):
    """The control plane does not know this boot (any more): another one has taken over, or nobody wants the weights."""


class NoAnswer(Exception):
    """The control plane did not answer, or not now: try again."""


def check_url(url: str) -> None:
    """The token may travel over TLS, or not leave this machine.

    :raises BadSetup: it would travel in clear text, or ``url`` is no URL.
    """
    try:
        parsed = urlsplit(url)
        host, _ = parsed.hostname or "", parsed.port
    except ValueError:
        host, parsed = "", urlsplit("")
    if parsed.scheme not in {"http", "https"} or not host or parsed.username or parsed.password:
        raise BadSetup(f"{url[:200]!r} is not the address of a job; it begins with https://")
    if parsed.scheme == "http" and not _is_loopback(host):
        raise BadSetup(
            f"{url[:200]} would send the agent's token in clear text; set SLIPWAY_AGENT_URL of the control plane to an "
            "https address"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class ControlPlane:
    """Asks for the job and reports; an async context manager.

    :raises BadSetup: no safe URL, or a CA file that cannot be read.
    """

    def __init__(self, job_url: str, token: str, *, timeout_s: float = 10.0) -> None:
        check_url(job_url)
        self._url = job_url
        local = _is_loopback(urlsplit(job_url).hostname or "")
        self._client = httpx.AsyncClient(
            verify=_certificates(),
            timeout=timeout_s,
            headers={"Authorization": f"Bearer {token}", "User-Agent": "slipway-agent"},
            follow_redirects=False,
            trust_env=not local,  # a proxy must not be asked for this machine
        )

    async def __aenter__(self) -> ControlPlane:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._client.aclose()

    async def job(self) -> Job:
        """What to fetch.

        :raises NotWanted: nothing (any more).
        :raises NoAnswer: ask again.
        :raises BadSetup: the answer is not one of a control plane's, or its certificate cannot be trusted.
        """
        try:
            return Job.from_json(await self._ask("GET"))
        except MalformedAnswer as error:
            raise BadSetup(f"{self._url}: {error}; control plane and agent must be of one version") from None

    async def report(self, report: Report) -> bool:
        """Tell how far it is.

        :return: whether to stop: nobody wants the weights any more.
        :raises NotWanted: another boot has taken over.
        :raises NoAnswer: report again.
        :raises BadSetup: as :meth:`job` does.
        """
        answer = await self._ask("POST", report.to_json())
        return bool(answer.get("cancel", False))

    async def _ask(self, method: str, body: object = None) -> dict[str, Any]:
        try:
            async with self._client.stream(method, self._url, json=body) as response:
                content = await self._read(response)
        except httpx.TransportError as error:
            if _is_about_certificates(error):
                raise BadSetup(
                    f"the certificate of {self._url} cannot be trusted ({error}); if it is signed by a CA of your own, "
                    f"name that CA's certificate in {CA_FILE}"
                ) from None
            raise NoAnswer(f"{self._url} does not answer ({error or type(error).__name__})") from None
        return self._judge(response, content)

    async def _read(self, response: httpx.Response) -> bytes:
        content = bytearray()
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > _LARGEST_ANSWER:
                raise BadSetup(f"{self._url} answers with more than {_LARGEST_ANSWER} bytes: that is no control plane")
        return bytes(content)

    def _judge(self, response: httpx.Response, content: bytes) -> dict[str, Any]:
        status = response.status_code
        if response.has_redirect_location:
            raise BadSetup(
                f"{self._url} redirects to {response.headers['Location'][:200]!r}, which the agent does not follow; "
                "set SLIPWAY_AGENT_URL to the address that answers itself"
            )
        if status in {401, 403, 404, 409, 410}:
            raise NotWanted(f"the control plane does not want this boot's work (status {status})")
        if status == 429 or status >= 500:
            raise NoAnswer(f"{self._url} answers with status {status}")
        try:
            value = json.loads(content)
        except ValueError:
            value = None
        if status != 200 or not isinstance(value, dict):
            raise BadSetup(f"{self._url} answers with status {status} and not as a control plane does")
        return value


def _certificates() -> ssl.SSLContext:
    path = os.environ.get(CA_FILE)
    if not path:
        return httpx.create_ssl_context()
    try:
        return ssl.create_default_context(cafile=str(Path(path).expanduser()))
    except (OSError, ssl.SSLError) as error:
        raise BadSetup(f"{CA_FILE}={path} cannot be used: {error}") from None


def _is_about_certificates(error: BaseException | None) -> bool:
    """Whether a failed check of a certificate is behind ``error``; httpx wraps it twice."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
