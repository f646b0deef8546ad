"""Where an instance's weights lie on this machine."""

from __future__ import annotations

from pathlib import Path

from control_plane.downloads.cache_layout import ModelCache
from control_plane.downloads.tables import Download, DownloadState
from control_plane.hub import local_models
from control_plane.hub.ids import ModelId
from control_plane.instances.tables import Instance
from control_plane.settings import Settings


def folder(settings: Settings, instance: Instance, download: Download | None) -> Path | None:
    """The folder that the engine is given; None while the weights are not there.

    Offline, what the cache holds is used as it is, whoever put it there: no hub can be asked what belongs to it.

    :raises RepositoryNotFound: a model of the ``slipway/`` namespace that this version does not have.
    """
    model = ModelId.parse(instance.model)
    if model.is_local:
        return local_models.folder_of(model)
    if download is not None and download.state == DownloadState.DONE and download.path is not None:
        path = Path(download.path)
    elif settings.hub_offline and instance.commit_sha is not None:
        path = ModelCache(settings.hub_cache, instance.model).snapshot(instance.commit_sha)
    else:
        return None
    return path if path.is_dir() else None
