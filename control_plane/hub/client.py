"""A model on the hub: metadata through huggingface_hub, small files by capped GETs, always at a pinned commit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import ModelInfo, RepoSibling

from control_plane.errors import SlipwayError
from control_plane.hub.errors import (
    GatedRepository,
    HubRateLimited,
    HubTokenRejected,
    HubUnreachable,
    InvalidRepository,
    NotInCache,
    RepositoryNotFound,
    RevisionNotFound,
)
from control_plane.hub.hosts import HubHosts, is_web_address
from control_plane.hub.ids import ModelId, is_commit_sha, is_safe_path
from control_plane.hub.source import ModelCard, RepositoryFile
from control_plane.hub.transport import Limits, Span, get, guarded_session


@dataclass(frozen=True)
class HubModel:
    """One model at one commit, on the hub. Nothing of it is executed or unpickled; only JSON and headers are read."""

    client: HubClient
    model: ModelId
    sha: str
    files: tuple[RepositoryFile, ...] = field(repr=False)
    card: ModelCard

    def read(self, path: str, *, limit: int, start: int = 0, length: int | None = None) -> bytes:
        """See :class:`control_plane.hub.source.ModelSource`."""
        return self.client.read(self.model, self.sha, path, limit=limit, start=start, length=length)


@dataclass(frozen=True)
class HubClient:
    """A hub and whom we are to it. ``token`` is sent to the endpoint itself and to no other host."""

    endpoint: str
    token: str | None = field(default=None, repr=False)
    limits: Limits = field(default_factory=Limits)

    @property
    def hosts(self) -> HubHosts:
        """The hosts it may send us to."""
        return HubHosts(self.endpoint)

    def model(self, model: ModelId, revision: str) -> HubModel:
        """Look ``revision`` up and pin it.

        :raises SlipwayError: one of control_plane.hub.errors.
        """
        if not is_web_address(self.endpoint):
            raise HubUnreachable(
                f"The hub's address, {self.endpoint!r}, is not a web address.",
                "Set HF_ENDPOINT to one that begins with https:// or http://, or unset it for huggingface.co.",
            )
        api = HfApi(endpoint=self.endpoint, token=self.token or False, library_name="slipway")
        with _typed_errors(self.endpoint, model, revision), guarded_session(self.hosts):
            try:
                info = api.model_info(str(model), revision=revision, files_metadata=True, timeout=self.limits.silence)
                return HubModel(self, model, _sha(info), _files(info), _card(info))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise HubUnreachable(f"{self.endpoint} does not answer like a hub: {error}.") from error

    def read(
        self, model: ModelId, sha: str, path: str, *, limit: int, start: int = 0, length: int | None = None
    ) -> bytes:
        """A file of ``model`` at ``sha``, or a range of it; see :class:`control_plane.hub.source.ModelSource`."""
        url = f"{self.endpoint}/{model}/resolve/{sha}/{quote(path)}"
        span = None if length is None else Span(start, length)
        with _typed_errors(self.endpoint, model, sha):
            return get(url, self.hosts, token=self.token, limit=limit, limits=self.limits, span=span)


@contextmanager
def _typed_errors(endpoint: str, model: ModelId, revision: str) -> Iterator[None]:
    """Turns what huggingface_hub and the network raise into this package's errors."""
    try:
        yield
    except SlipwayError:
        raise
    except GatedRepoError as error:
        token = "was not sent a token" if error.response.status_code == 401 else "has not let this token in"
        raise GatedRepository(
            f"{model} is gated: its authors ask for their terms to be accepted, and the hub {token}.",
            f"Accept the terms at {endpoint}/{model}, then set a token of that account (HF_TOKEN).",
        ) from None
    except RevisionNotFoundError:
        raise RevisionNotFound(f"{model} has no revision {revision!r}.") from None
    except RepositoryNotFoundError:
        raise RepositoryNotFound(f"{endpoint} has no model {model}, or shows it to certain accounts only.") from None
    except OfflineModeIsEnabled:
        raise NotInCache("HF_HUB_OFFLINE is set: the hub is not asked.") from None
    except HfHubHTTPError as error:
        raise _judged(error.response, endpoint, model) from None
    except httpx2.TimeoutException:
        raise HubUnreachable(f"{endpoint} did not answer in time.") from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise HubUnreachable(f"{endpoint} cannot be reached: {error or type(error).__name__}.") from None


def _judged(response: Any, endpoint: str, model: ModelId) -> SlipwayError:
    status = response.status_code
    if status == 401 and "Invalid credentials" in response.headers.get("X-Error-Message", ""):
        return HubTokenRejected(f"{endpoint} does not accept the token.")
    if status in {401, 404}:
        return RepositoryNotFound(f"{endpoint} has no model {model}, or shows it to certain accounts only.")
    if status == 403:
        return HubTokenRejected(f"{endpoint} does not let this token read {model}.")
    if status == 429:
        seconds = response.headers.get("Retry-After", "")
        wait = int(seconds) if seconds.isdecimal() else 60
        return HubRateLimited(f"{endpoint} asks for fewer requests.", retry_after_s=wait)
    return HubUnreachable(f"{endpoint} answered with status {status}.")


def _sha(info: ModelInfo) -> str:
    if not isinstance(info.sha, str) or not is_commit_sha(info.sha):
        raise ValueError("it gave no commit")
    return info.sha


def _files(info: ModelInfo) -> tuple[RepositoryFile, ...]:
    """All files of the commit.

    :raises InvalidRepository: a name that would leave the folder it is downloaded to.
    """
    return tuple(sorted((_file(sibling) for sibling in info.siblings or ()), key=lambda file: file.path))


def _file(sibling: RepoSibling) -> RepositoryFile:
    path, size = sibling.rfilename, sibling.size
    if not is_safe_path(path):
        raise InvalidRepository(f"The repository has a file with a dangerous name: {path[:100]!r}.")
    sha256 = sibling.lfs.sha256 if sibling.lfs else None
    etag = sha256 or sibling.blob_id
    if not isinstance(size, int) or size < 0 or not isinstance(etag, str):
        raise ValueError(f"it gave no size or no checksum of {path}")
    return RepositoryFile(path, size, etag, sha256)


def _card(info: ModelInfo) -> ModelCard:
    """Licence, gate and element counts as the hub publishes them."""
    elements = info.safetensors.parameters if info.safetensors else None
    if elements is not None and not all(isinstance(count, int) and count >= 0 for count in elements.values()):
        raise ValueError("its element counts are not numbers")
    return ModelCard(_license(info), bool(info.gated), elements)


def _license(info: ModelInfo) -> str | None:
    """The licence of the model card; its proper name where the card says "other"."""
    for key in ("license", "license_name"):
        value = getattr(info.card_data, key, None)
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, str) and first != "other":
            return first
    return next((tag.removeprefix("license:") for tag in info.tags or () if tag.startswith("license:")), None)
