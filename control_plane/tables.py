"""Every table, imported once, so that ``SQLModel.metadata`` is complete for Alembic."""

from control_plane.accounts import tables as accounts
from control_plane.audit import tables as audit
from control_plane.downloads import tables as downloads
from control_plane.instances import tables as instances
from control_plane.processes import tables as processes
from control_plane.reaper import tables as reaper

__all__ = ["accounts", "audit", "downloads", "instances", "processes", "reaper"]
