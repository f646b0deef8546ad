"""An imaginary place behind HTTP, as its callers see it; ``server.py`` is the other side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter

from control_plane.providers.base import (
    FetchSpec,
    HardwareOffer,
    ProviderError,
    ProviderUnavailable,
    ReplicaSpec,
    ReplicaStatus,
)
from control_plane.providers.fake.calls import LogPiece
from control_plane.providers.fake.faults import Faults

_TIMEOUT_S = 5.0
_SPEC: TypeAdapter[ReplicaSpec | FetchSpec] = TypeAdapter(ReplicaSpec | FetchSpec)
_STATUS = TypeAdapter(ReplicaStatus)
_STATUSES = TypeAdapter(list[ReplicaStatus])
_OFFERS = TypeAdapter(list[HardwareOffer])
_FAULTS = TypeAdapter(Faults)


class RemoteCalls:
    """Calls on the place that a server publishes at ``url``; see :class:`~.calls.Calls` for what they mean."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=_TIMEOUT_S, trust_env=False)
        self._url = url
        self._last_offers: list[HardwareOffer] = []

    def offers(self) -> list[HardwareOffer]:
        """What can be had now; while the server is away, what it had, as unavailable."""
        try:
            self._last_offers = _OFFERS.validate_python(self._ask("GET", "/api/offers"))
        except ProviderUnavailable as error:
            return [replace(offer, available=False, why_unavailable=error.detail) for offer in self._last_offers]
        return self._last_offers

    def create(self, spec: ReplicaSpec | FetchSpec) -> ReplicaStatus:
        """Start it, or return what has its name."""
        return _STATUS.validate_python(self._ask("POST", "/api/replicas", _SPEC.dump_python(spec, mode="json")))

    def find(self, name: str) -> ReplicaStatus:
        """What is known of a name."""
        return _STATUS.validate_python(self._ask("GET", _path(name)))

    def list_owned(self, owner: str) -> list[ReplicaStatus]:
        """What carries an owner's tag."""
        return _STATUSES.validate_python(self._ask("GET", f"/api/replicas?owner={quote(owner)}"))

    def delete(self, name: str, *, boot_token: str | None, grace_s: float) -> None:
        """Begin to end it."""
        boot = f"&boot_token={quote(boot_token)}" if boot_token else ""
        self._ask("DELETE", f"{_path(name)}?grace_s={grace_s:g}{boot}")

    def read_log(self, name: str, offset: int) -> LogPiece:
        """Its log from ``offset`` on; a negative one counts from the end and begins with a whole line."""
        answer = self._ask("GET", f"{_path(name)}/log?offset={offset}")
        return LogPiece(int(answer["end"]), str(answer["text"]))

    def set_faults(self, faults: Faults) -> None:
        """What goes wrong from now on."""
        self._ask("PUT", "/faults", _FAULTS.dump_python(faults, mode="json"))

    def happen(self, event: str, **arguments: Any) -> None:
        """Let something happen at the place: ``exit``, ``lose_node`` …; see ``server.py``."""
        self._ask("POST", f"/events/{event}", arguments)

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        try:
            response = self._client.request(method, path, json=body)
        except httpx.TransportError as error:
            detail = f"the imaginary place at {self._url} does not answer ({type(error).__name__})"
            raise ProviderUnavailable(detail, "Is its server running?") from error
        answer = response.json()
        if response.is_success:
            return answer
        kind = ProviderUnavailable if answer["code"] == ProviderUnavailable.code else ProviderError
        raise kind(answer["detail"], answer["next_step"])


def _path(name: str) -> str:
    return f"/api/replicas/{quote(name, safe='')}"
