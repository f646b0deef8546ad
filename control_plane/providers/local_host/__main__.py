"""``python -m control_plane.providers.local_host``: run replicas on this machine until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from control_plane.errors import SlipwayError
from control_plane.providers.local_host.command import default_engine
from control_plane.providers.local_host.server import LocalHost
from control_plane.providers.local_host.table import ReplicaTable
from control_plane.settings import get_settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run until told to end; 0 after a drain, 1 when another host is already there.

    :param argv: the command line without the program's name; None takes the process's own.
    """
    parser = argparse.ArgumentParser(prog="python -m control_plane.providers.local_host")
    parser.add_argument("--engine", type=Path, default=default_engine(), help="program to run (default: %(default)s)")
    parser.add_argument(
        "--drain", type=float, default=10.0, metavar="SECONDS", help="for requests in flight at the end"
    )
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    settings = get_settings()
    try:
        asyncio.run(_run(settings.local_host_socket, settings.instances_dir, arguments.engine, arguments.drain))
    except SlipwayError as error:
        sys.stderr.write(f"local host: {error.detail}. {error.next_step}\n")
        return 1
    return 0


async def _run(socket: Path, folder: Path, engine: Path, drain_s: float) -> None:
    await LocalHost(ReplicaTable(folder, engine), drain_s=drain_s).run(socket)


if __name__ == "__main__":
    sys.exit(main())
