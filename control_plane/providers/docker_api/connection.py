"""The connection to Docker's API, and what its errors mean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager

from docker.api import APIClient
from docker.errors import APIError, DockerException
from docker.tls import TLSConfig
from requests import RequestException

from control_plane.providers.base import ProviderError, ProviderUnavailable
from control_plane.providers.docker_api.options import DockerOptions

#: For the one question that every version answers: which one it is.
_ANY_VERSION = "1.41"
#: Docker says 500 to some requests that can never work, and Podman to many.
_FINAL = (
    (
        r"could not select device driver|unresolvable CDI device",
        "Set up the NVIDIA Container Toolkit on the Docker host.",
    ),
    (r"executable file not found|exec format error", "Set SLIPWAY_DOCKER_SERVING_IMAGE to a serving image of Slipway."),
    (
        r"bind source path does not exist|statfs .*no such file|no such file or directory",
        "The Docker host must see the weights' folder under the same path as this machine.",
    ),
    (r"unknown runtime|unknown or invalid runtime name|invalid runtime", "Correct SLIPWAY_DOCKER_RUNTIME."),
    (r"network .*not found|unable to find network", "Correct SLIPWAY_DOCKER_NETWORK, or leave it empty."),
)
_REFUSED = "Look at the Docker host's log; 'slipway doctor' shows how it is reached."
_AWAY = "Is Docker running, and may this user open its socket? SLIPWAY_DOCKER_HOST says where it is looked for."


class Connection:
    """Makes clients. A client is used by one thread for one piece of work: sessions of requests are no one else's."""

    def __init__(self, options: DockerOptions) -> None:
        self._options = options
        self._version: str | None = None

    @contextmanager
    def client(self, timeout_s: float = 30.0) -> Iterator[APIClient]:
        """A client of Docker's low-level API, whose errors leave as ours.

        :param timeout_s: seconds without an answer after which a call fails.
        :raises ProviderUnavailable: nobody answered, or Docker failed; the outcome is unknown.
        :raises ProviderError: Docker refused, finally.
        """
        try:
            with closing(self._connect(timeout_s)) as client:
                yield client
        except APIError as error:
            raise _translated(error) from error
        except (DockerException, RequestException) as error:
            detail = f"Docker at {self._options.host} does not answer ({_short(str(error))})"
            raise ProviderUnavailable(detail, _AWAY) from error

    def _connect(self, timeout_s: float) -> APIClient:
        if self._version is None:
            with closing(self._make(_ANY_VERSION, timeout_s)) as client:
                answer = client.version(api_version=False)
            if "ApiVersion" not in answer:
                raise ProviderError(f"what answers at {self._options.host} is not Docker", _AWAY)
            self._version = str(answer["ApiVersion"])
        return self._make(self._version, timeout_s)

    def _make(self, version: str, timeout_s: float) -> APIClient:
        options = self._options
        tls: TLSConfig | bool = False
        if options.certificates is not None:
            pair = (str(options.certificates / "cert.pem"), str(options.certificates / "key.pem"))
            tls = TLSConfig(client_cert=pair, ca_cert=str(options.certificates / "ca.pem"), verify=True)
        client = APIClient(options.host, version=version, timeout=timeout_s, tls=tls)
        client.trust_env = False  # else an authority named in the environment would replace Docker's own
        return client


def status_of(error: APIError) -> int:
    """The HTTP status of an error; 0 for one that came in the middle of an answer."""
    return error.response.status_code if error.response is not None else 0


def is_gone(error: APIError) -> bool:
    """Whether it says that there is no such container. Podman answers 500 while one is being removed."""
    return status_of(error) == 404 or "no such container" in str(error.explanation or error)


def is_taken(error: APIError) -> bool:
    """Whether it says that a container has this name already; Podman's status for that is 500."""
    return status_of(error) == 409 or "already in use" in str(error.explanation or error)


def is_final(error: APIError) -> bool:
    """Whether the same request would fail again."""
    return isinstance(_translated(error), ProviderError)


def _translated(error: APIError) -> ProviderError | ProviderUnavailable:
    words = _short(str(error.explanation or error))
    for pattern, next_step in _FINAL:
        if re.search(pattern, words, re.IGNORECASE):
            return ProviderError(f"Docker refused: {words}", next_step)
    if 400 <= status_of(error) < 500:
        return ProviderError(f"Docker refused: {words}", _REFUSED)
    return ProviderUnavailable(f"Docker failed: {words}", _REFUSED)


def _short(words: str) -> str:
    return " ".join(words.split())[:500]


def is_podman(client: APIClient) -> bool:
    """Whether Podman answers, which speaks Docker's API with differences."""
    components = client.version().get("Components") or []
    return any("podman" in str(component.get("Name", "")).lower() for component in components)
