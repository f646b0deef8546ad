"""Models that come with Slipway: ids in ``slipway/`` stand for folders of this repository, never for the hub."""

from __future__ import annotations

from pathlib import Path

from control_plane.hub.errors import RepositoryNotFound
from control_plane.hub.ids import LOCAL_NAMESPACE, ModelId

_ROOT = Path(__file__).resolve().parents[2]
_FOLDERS = {"starter": _ROOT / "starter" / "model"}

#: What people may type instead of the whole id.
_SHORT_NAMES = frozenset(_FOLDERS)


def expand_short_name(text: str) -> str:
    """``starter`` → ``slipway/starter``; anything else as it is."""
    return f"{LOCAL_NAMESPACE}/{text}" if text in _SHORT_NAMES else text


def folder_of(model: ModelId) -> Path:
    """The folder that a local model is.

    :raises RepositoryNotFound: no such model comes with Slipway.
    """
    folder = _FOLDERS.get(model.name)
    if not model.is_local or folder is None or not folder.is_dir():
        known = ", ".join(f"{LOCAL_NAMESPACE}/{name}" for name in _FOLDERS)
        raise RepositoryNotFound(f"No model {model} comes with Slipway.", f"The ones that do: {known}.")
    return folder
