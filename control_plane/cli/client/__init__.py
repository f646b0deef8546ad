"""The half of ``slipway`` that talks to a running control plane over HTTP; it needs nothing else of it."""

from __future__ import annotations

import typer

from control_plane.cli.client import chat, instances, keys, launch, logs, models, orphans


def register(app: typer.Typer) -> None:
    """Add the client commands to ``app``."""
    for part in (launch, instances, logs, chat, models, keys, orphans):
        part.register(app)
