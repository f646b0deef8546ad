"""Where an instance's weights lie on this machine."""

from __future__ import annotations

from pathlib import Path

from control_plane.downloads.tables import Download, DownloadState
from control_plane.hub import local_models
from control_plane.hub.ids import ModelId
from control_plane.instances.tables import Instance


def folder(instance: Instance, download: Download | None) -> Path | None:
    """The folder that the engine is given; None while the weights are not there.

    :raises RepositoryNotFound: a model of the ``slipway/`` namespace that this version does not have.
    """
    model = ModelId.parse(instance.model)
    if model.is_local:
        return local_models.folder_of(model)
    if download is None or download.state != DownloadState.DONE or download.path is None:
        return None
    path = Path(download.path)
    return path if path.is_dir() else None
