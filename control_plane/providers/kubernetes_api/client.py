"""Requests to a Kubernetes API server: JSON in, JSON out, and errors that a person can act on.

The ``kubernetes`` package finds the cluster and authenticates (kubeconfig with its plugins, in-cluster tokens that
rotate). Its typed models are left aside: they refuse what a newer or older server adds or leaves out, and server-side
apply sends exactly the fields that we mean to own.
"""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import urllib3
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import OpenApiException
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

from control_plane.providers.base import ProviderError, ProviderUnavailable

Json = dict[str, Any]

#: Under this name the server notes which fields are ours.
FIELD_MANAGER = "slipway"
_REACH = "Check that the API server runs and that SLIPWAY_KUBERNETES_KUBECONFIG leads to it."
_RIGHTS = "Give Slipway's service account the roles of the Helm chart (docker/helm/slipway), or a kubeconfig with them."


class ApiClash(ProviderUnavailable):
    """Another writer was there first: look at what is there."""


class ApiInvalid(ProviderError):
    """The object makes no sense to the server, or would change a field of an existing one that never changes."""


class ApiRefusal(ProviderUnavailable):
    """We may not do this. The cluster's roles may change any moment, so it is no final answer about a replica."""


class KubernetesApi:
    """One API server, connected to when it is first asked.

    :param kubeconfig: None means that this process runs inside the cluster.
    :param timeout_s: of one request.
    """

    def __init__(self, kubeconfig: Path | None, *, timeout_s: float = 10.0) -> None:
        self._kubeconfig = kubeconfig
        self._timeout_s = timeout_s
        self._connect = lru_cache(maxsize=1)(self._load)
        self._lock = threading.Lock()

    def get(self, path: str, **query: str) -> Json | None:
        """The object at ``path``; None where there is none."""
        text = self.request("GET", path, query, missing_is_none=True)
        return None if text is None else _parsed(text)

    def items(self, path: str, **query: str) -> list[Json]:
        """The objects of a collection; ``labelSelector`` and ``fieldSelector`` narrow it."""
        return list((self.get(path, **query) or {}).get("items") or [])

    def text(self, path: str, **query: str) -> str | None:
        """What is at ``path`` as text (a container's log); None where there is none."""
        return self.request("GET", path, query, missing_is_none=True)

    def apply(self, path: str, manifest: Json) -> Json:
        """Server-side apply: the object is made, or brought to what ``manifest`` says. Repeating it changes nothing.

        :raises ApiInvalid: it makes no sense, or is there and a field of it that never changes has another value.
        """
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return _parsed(self.request("PATCH", path, query, manifest, "application/apply-patch+yaml") or "{}")

    def merge(self, path: str, patch: Json) -> None:
        """JSON merge patch (RFC 7396). An object that is not there is left so."""
        query = {"fieldManager": FIELD_MANAGER}
        self.request("PATCH", path, query, patch, "application/merge-patch+json", missing_is_none=True)

    def delete(self, path: str, uid: str, *, grace_s: int | None = None, propagation: str = "Background") -> None:
        """Delete the object ``uid``. If it is on its way out, gone, or another has its name by now, that is fine."""
        body: Json = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        body["preconditions"] = {"uid": uid}
        if grace_s is not None:
            body["gracePeriodSeconds"] = grace_s
        with suppress(ApiClash):
            self.request("DELETE", path, {}, body, missing_is_none=True)

    def request(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        body: Json | None = None,
        content_type: str = "application/json",
        *,
        missing_is_none: bool = False,
    ) -> str | None:
        """One request; the text of its answer.

        :param missing_is_none: answer None where there is no such object, instead of raising.
        :raises ProviderUnavailable: no answer, or none that says something final.
        :raises ProviderError: the server will never accept this.
        """
        with self._lock:
            client = self._connect()
        headers = {"Accept": "application/json, */*", "Content-Type": content_type}
        try:
            arguments = client.param_serialize(
                method, path, query_params=list(query.items()), header_params=headers, body=body,
                auth_settings=["BearerToken"],
            )  # fmt: skip
            response = client.call_api(*arguments, _request_timeout=self._timeout_s)
            status, text = int(response.status), bytes(response.response.data).decode("utf-8", "replace")
        except (urllib3.exceptions.HTTPError, OpenApiException, OSError) as error:
            raise ProviderUnavailable(f"the Kubernetes API does not answer ({_short(error)})", _REACH) from error
        if status == 404 and missing_is_none:
            return None
        if not 200 <= status <= 299:
            _raise(status, text)
        return text

    def _load(self) -> ApiClient:
        configuration = Configuration()
        try:
            if self._kubeconfig is None:
                load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            else:
                load_kube_config(  # type: ignore[no-untyped-call]
                    str(self._kubeconfig), client_configuration=configuration, persist_config=False
                )
        except (ConfigException, OSError) as error:
            next_step = "Set SLIPWAY_KUBERNETES_KUBECONFIG to a kubeconfig file, or run Slipway inside the cluster."
            raise ProviderUnavailable(f"no Kubernetes cluster is configured: {error}", next_step) from error
        configuration.retries = 0  # the outcome of a request is looked up, not tried again blindly
        return ApiClient(configuration)


def _raise(status: int, text: str) -> None:
    """The typed error for an answer that is none."""
    try:
        words = str(json.loads(text).get("message") or text)
    except (ValueError, AttributeError):
        words = text
    words = " ".join(words.split())[:500] or f"HTTP {status}"
    if status in (401, 403):
        raise ApiRefusal(f"the Kubernetes API refuses: {words}", _RIGHTS)
    if status == 404:
        raise ProviderError(f"the Kubernetes API finds no such place: {words}", "Create the namespace that is named.")
    if status == 422:
        raise ApiInvalid(f"the Kubernetes API refuses: {words}", "Correct the setting or option that it names.")
    if status == 409:
        raise ApiClash(f"the Kubernetes API sees a conflict: {words}", "It is looked up and tried again.")
    if status == 429 or status >= 500:
        raise ProviderUnavailable(f"the Kubernetes API cannot answer now: {words}", _REACH)
    raise ProviderError(f"the Kubernetes API refuses: {words}", "Correct the setting or option that it names.")


def _parsed(text: str) -> Json:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ProviderUnavailable("what answers is no Kubernetes API (not JSON)", _REACH) from error
    if not isinstance(value, dict):
        raise ProviderUnavailable("what answers is no Kubernetes API (not an object)", _REACH)
    return value


def _short(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return " ".join(str(reason).split())[:200] or type(error).__name__
