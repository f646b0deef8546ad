"""``slipway logs``: what an instance's engines wrote, also after their death."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Annotated

import typer

from control_plane.cli.client.api import Api, Json
from control_plane.cli.client.find import find_instance
from control_plane.cli.client.instances import NameArgument
from control_plane.cli.client.output import print_json, say
from control_plane.cli.client.patience import Patience
from control_plane.cli.client.text import printable
from control_plane.cli.client.watch import POLL_INTERVAL_S
from control_plane.cli.configuration import JsonOption
from control_plane.errors import Unavailable

#: As much as the server gives of a log's end.
_TAIL_BYTES = 1 << 20


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(logs)


def logs(
    name: NameArgument,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C, or the instance's end.")] = False,
    tail: Annotated[int, typer.Option(min=1, help="Begin with this many lines.")] = 200,
    replica: Annotated[int | None, typer.Option(min=0, help="Which of its engines; by default the first.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Print an instance's log; it is kept after the engine's death. --follow --json prints an object per line."""
    with Api.open() as api:
        instance = find_instance(api, name)
        piece = api.get(f"/instances/{instance['id']}/logs", tail_bytes=_TAIL_BYTES, replica=replica)
        piece["text"] = _last_lines(piece["text"], tail)
        if as_json and not follow:
            print_json(piece)
            return
        if not piece["text"] and not as_json:
            say("nothing has been logged yet")
        _print(piece, as_json=as_json)
        if follow:
            try:
                for news in _follow(api, instance["id"], piece["next_offset"], piece["replica"]):
                    _print(news, as_json=as_json)
            except KeyboardInterrupt:
                return


def _follow(api: Api, instance_id: str, offset: int, replica: int) -> Iterator[Json]:
    """New pieces of a log until the instance is terminated; asked for, so that a restarted server is no matter."""
    patience = Patience()
    while True:
        try:
            piece = api.get(f"/instances/{instance_id}/logs", offset=offset, replica=replica)
            if piece["text"]:
                offset = piece["next_offset"]
                yield piece
            elif api.get(f"/instances/{instance_id}")["phase"] == "terminated":
                return
            patience.answered()
        except Unavailable as error:
            patience.excuse(error)
        time.sleep(POLL_INTERVAL_S)


def _last_lines(text: str, count: int) -> str:
    return "".join(text.splitlines(keepends=True)[-count:])


def _print(piece: Json, *, as_json: bool) -> None:
    sys.stdout.write(json.dumps(piece, ensure_ascii=False) + "\n" if as_json else printable(piece["text"]))
    sys.stdout.flush()
