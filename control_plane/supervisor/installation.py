"""What ``slipway up`` puts in place before it starts anything: the schema, the accounts, the key of this user."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from control_plane import client_file
from control_plane.accounts.service import bootstrap
from control_plane.client_file import ClientFile
from control_plane.context import get_context
from control_plane.errors import Unavailable
from control_plane.migrate import upgrade
from control_plane.settings import Settings


def prepare_database(settings: Settings) -> str | None:
    """Migrate, see to the accounts, and leave ``client.json`` and ``client.header``.

    :return: the one-time set-up link while there is no administrator.
    """
    try:
        upgrade(settings.database_url)
        made = bootstrap(get_context())
    except SQLAlchemyError as error:
        reason = str(error).splitlines()[0]
        raise Unavailable(f"the database cannot be used: {reason}", "Check SLIPWAY_DATABASE_URL.") from error
    kept = client_file.read(settings.data_dir)
    api_key = made.api_key or (kept.api_key if kept else "")
    client_file.write(settings.data_dir, ClientFile(settings.local_url, api_key))
    _write_private(settings.client_header, f"Authorization: Bearer {api_key}\n")
    return f"{settings.public_url}/setup?token={made.setup_token}" if made.setup_token else None


def _write_private(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)
