"""A model id, as typed → pinned facts, wherever the model is: with Slipway, in the cache (offline), or on the hub."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from control_plane.hub.client import HubClient
from control_plane.hub.errors import NotInCache, RepositoryNotFound
from control_plane.hub.facts import ModelFacts, read_facts
from control_plane.hub.folder import FolderModel
from control_plane.hub.ids import MAIN, ModelId, is_commit_sha, parse_revision
from control_plane.hub.local_models import expand_short_name, folder_of
from control_plane.hub.source import ModelSource
from control_plane.hub.transport import Limits
from control_plane.settings import Settings


def parse_model(text: str) -> ModelId:
    """An id as a person types it, short names of local models included.

    :raises InvalidModelId: not an id.
    """
    return ModelId.parse(expand_short_name(text.strip()))


def resolve(
    settings: Settings,
    model: ModelId,
    revision: str = MAIN,
    *,
    token: str | None = None,
    limits: Limits | None = None,
) -> ModelFacts:
    """Facts of ``model`` at the commit that ``revision`` stands for now. Talks to the hub: hold no session.

    :param token: whose access to use; the default is ``HF_TOKEN``.
    :raises SlipwayError: one of control_plane.hub.errors, each with what to do next.
    """
    revision = parse_revision(revision)
    return read_facts(str(model), _source(settings, model, revision, token or settings.hub_token, limits or Limits()))


def _source(settings: Settings, model: ModelId, revision: str, token: str | None, limits: Limits) -> ModelSource:
    if model.is_local:
        folder = _bundled(folder_of(model))
        if revision not in {MAIN, folder.sha}:
            raise RepositoryNotFound(f"{model} comes with Slipway and has no revision {revision!r}.")
        return folder
    if settings.hub_offline:
        return _cached(settings.hub_cache, model, revision)
    return HubClient(settings.hub_endpoint, token, limits).model(model, revision)


@lru_cache
def _bundled(folder: Path) -> FolderModel:
    """A model that comes with Slipway, which never changes while it runs: its files are read and hashed once."""
    return FolderModel(folder)


def _cached(cache: Path, model: ModelId, revision: str) -> FolderModel:
    """The snapshot of ``model`` in a Hugging Face cache.

    Layout: models--org--name/refs/<revision> holds a SHA, models--org--name/snapshots/<SHA>/ the files.
    """
    home = cache / f"models--{str(model).replace('/', '--')}"
    reference = home / "refs" / revision
    sha = revision if is_commit_sha(revision) else reference.read_text().strip() if reference.is_file() else ""
    snapshot = home / "snapshots" / sha
    if not is_commit_sha(sha) or not snapshot.is_dir():
        raise NotInCache(f"HF_HUB_OFFLINE is set, and {model} at {revision!r} is not in the cache ({cache}).")
    return FolderModel(snapshot, sha)
