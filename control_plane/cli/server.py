"""Commands that run the whole control plane on one machine: ``up``, ``down``, ``status``."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from control_plane.cli.configuration import DataOption, JsonOption, load_settings
from control_plane.cli.exit_codes import TimedOut
from control_plane.errors import NotFound

if TYPE_CHECKING:
    from control_plane.settings import Settings
    from control_plane.supervisor.announcement import Announcement
    from control_plane.supervisor.data_folder import Holder


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    for command in (up, down, status):
        app.command()(command)


class NotRunning(NotFound):
    """Nothing runs on the data folder."""

    code = "not_running"


def _say(line: str) -> None:
    print(f"slipway: {line}", file=sys.stderr, flush=True)


def up(
    port: Annotated[int | None, typer.Option(help="Port to listen on (default: 8000).", min=1, max=65535)] = None,
    data: DataOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: 127.0.0.1).")] = None,
    starter: Annotated[bool, typer.Option(help="Launch the starter instance.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Run Slipway here until Ctrl-C: web pages, API, worker, scheduler, broker and instances."""
    from control_plane.supervisor.up import run

    settings = load_settings(port=port, data_dir=data, host=host)

    def announce(announcement: Announcement) -> None:
        print(json.dumps(asdict(announcement)) if as_json else announcement.text(), flush=True)

    run(settings, with_starter=starter, report=_say, announce=announce)
    _say("stopped")


def down(
    data: DataOption = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the end.", min=0)] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """End the Slipway that runs on the data folder, and wait until it has ended."""
    settings = load_settings(data_dir=data)
    holder = _holder(settings)
    process = os.pidfd_open(holder.pid)  # stands for this process even if its number is given to another one later
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        ended, _, _ = select.select([process], [], [], timeout)
    finally:
        os.close(process)
    if not ended:
        raise TimedOut(
            f"process {holder.pid} is still stopping after {timeout:g} s",
            "Wait for it, or end it at once by the same command again.",
        )
    print(json.dumps({"stopped": holder.pid}) if as_json else f"stopped (process {holder.pid})")


def _holder(settings: Settings) -> Holder:
    from control_plane.supervisor.data_folder import find_holder

    holder = find_holder(settings)
    if holder is None:
        raise NotRunning(
            f"Slipway is not running on {settings.data_dir}",
            f"Start it with: slipway up --data {settings.data_dir}   (or name another folder with --data)",
        )
    return holder


def status(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Show what runs on the data folder: processes, restarts, instances by phase."""
    from control_plane.cli.status import read_status

    settings = load_settings(data_dir=data)
    current = read_status(settings, _holder(settings))
    print(json.dumps(asdict(current)) if as_json else current.text())
