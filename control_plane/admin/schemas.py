"""What the API shows to administrators alone."""

from __future__ import annotations

from uuid import UUID

from control_plane.downloads.schemas import DownloadProgress
from control_plane.instances.schemas import InstanceView


class AdminInstanceView(InstanceView):
    """An instance of any team."""

    team_id: UUID
    team: str
    provider: str


class AdminDownloadView(DownloadProgress):
    """A download, and the storage it goes to: empty for the control plane's own."""

    location: str
    provider: str | None
