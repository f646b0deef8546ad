"""Where an instance's weights lie."""

from __future__ import annotations

from pathlib import Path

from control_plane.downloads.cache_layout import ModelCache
from control_plane.downloads.tables import Download, DownloadState
from control_plane.hub import local_models
from control_plane.hub.ids import ModelId
from control_plane.instances.tables import Instance
from control_plane.providers.base import Provider, Weights, WeightsFetcher
from control_plane.settings import Settings


def held(settings: Settings, instance: Instance, download: Download | None, provider: Provider) -> Weights | None:
    """The weights that the engine is given; None while they are not where it can read them.

    :raises RepositoryNotFound: a model of the ``slipway/`` namespace that this version does not have.
    """
    model = ModelId.parse(instance.model)
    if model.is_local:
        return Weights(instance.model, None, local_models.folder_of(model))
    if isinstance(provider, WeightsFetcher):
        location = provider.location(instance.hardware or "")
        if download is None or download.state != DownloadState.DONE or download.location != location:
            return None
        return Weights(instance.model, download.commit_sha, None)
    path = _folder(settings, instance, download)
    return Weights(instance.model, instance.commit_sha, path) if path is not None and path.is_dir() else None


def _folder(settings: Settings, instance: Instance, download: Download | None) -> Path | None:
    """Offline, what the cache holds is used as it is, whoever put it there: no hub can be asked what belongs to it."""
    if download is not None and download.state == DownloadState.DONE and download.path is not None:
        return Path(download.path)
    if settings.hub_offline and instance.commit_sha is not None:
        return ModelCache(settings.hub_cache, instance.model).snapshot(instance.commit_sha)
    return None
