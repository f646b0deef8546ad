"""``DATA/client.json``: how commands on this machine reach the server that ``slipway up`` runs for this user."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

NAME = "client.json"


class ClientFile(NamedTuple):
    """Where the server is, and the key to use."""

    url: str
    api_key: str


def read(data_dir: Path) -> ClientFile | None:
    """What the file says; None where it is missing or not what :func:`write` leaves."""
    try:
        content = json.loads((data_dir / NAME).read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict):
        return None
    url, api_key = content.get("url"), content.get("api_key")
    return ClientFile(url, api_key) if isinstance(url, str) and isinstance(api_key, str) else None


def write(data_dir: Path, content: ClientFile) -> None:
    """Replace the file in one step; only its owner can read it (mode 0600) from its first byte on."""
    unfinished = data_dir / f".{NAME}.{os.getpid()}"
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(content._asdict(), file)
    unfinished.replace(data_dir / NAME)
