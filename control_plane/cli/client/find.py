"""From what a person types to the instance they mean."""

from __future__ import annotations

from urllib.parse import quote
from uuid import UUID

from control_plane.cli.client.api import Api, Json
from control_plane.errors import NotFound


def find_instance(api: Api, name: str) -> Json:
    """The instance of this name, slug or id; a terminated one only where no other has the name.

    :raises NotFound: there is none.
    """
    if _is_id(name):
        return api.get(f"/instances/{quote(name)}")
    found = [
        instance for instance in api.items("/instances", limit=200) if name in {instance["name"], instance["slug"]}
    ]
    if not found:
        raise NotFound(f"there is no instance {name!r}", "'slipway ps' lists them.")
    return min(found, key=lambda instance: instance["phase"] == "terminated")


def _is_id(name: str) -> bool:
    try:
        UUID(name)
    except ValueError:
        return False
    return True
