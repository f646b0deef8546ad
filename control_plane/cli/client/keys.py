"""``slipway keys``: API keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from control_plane.cli.client.api import Api, Json
from control_plane.cli.client.output import print_json, print_line, print_table, say
from control_plane.cli.configuration import JsonOption
from control_plane.errors import Conflict, NotFound


def register(app: typer.Typer) -> None:
    """Add the group of commands to ``app``."""
    group = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True, rich_markup_mode=None)
    group.command("create")(create)
    group.command("list")(list_keys)
    group.command("revoke")(revoke)
    app.add_typer(group, name="keys")


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What will use the key.")],
    expires_in_days: Annotated[float | None, typer.Option(min=0.001, max=36500, help="Default: never.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Create an API key and print it: this is the only time that it can be seen."""
    body: Json = {"name": name}
    if expires_in_days is not None:
        body["expires_at"] = (datetime.now(UTC) + timedelta(days=expires_in_days)).isoformat()
    with Api.open() as api:
        made = api.post("/keys", body)
    if as_json:
        print_json(made)
        return
    say("Keep this key now: it cannot be shown again.")
    print_line(made["key"])


def list_keys(as_json: JsonOption = False) -> None:
    """List API keys; the keys themselves are not kept anywhere."""
    with Api.open() as api:
        found = list(api.items("/keys", limit=200))
    if as_json:
        print_json(found)
        return
    print_table(
        ["ID", "NAME", "KEY", "CREATED", "LAST USED", "STATE"],
        [
            [k["id"], k["name"], f"{k['prefix']}…", _day(k["created_at"]), _day(k["last_used_at"]), _state(k)]
            for k in found
        ],
        empty="no keys; make one with 'slipway keys create NAME'",
    )


def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Id, name or first characters of the key.")],
    as_json: JsonOption = False,
) -> None:
    """Revoke an API key, at once and for good."""
    with Api.open() as api:
        found = _find(api, key)
        api.delete(f"/keys/{found['id']}")
    if as_json:
        print_json({"id": found["id"], "revoked": True})
    else:
        say(f"key {found['name']!r} ({found['prefix']}…) is revoked")


def _find(api: Api, wanted: str) -> Json:
    keys = list(api.items("/keys", limit=200))
    # A whole key is accepted too, so that a leaked one can be pasted; it is compared here and sent nowhere.
    by_id = [key for key in keys if key["id"] == wanted or wanted.startswith(key["prefix"])]
    found = by_id or [key for key in keys if key["name"] == wanted and key["revoked_at"] is None]
    if not found:
        raise NotFound(f"there is no key {wanted[:16]!r} to revoke", "'slipway keys list' shows them.")
    if len(found) > 1:
        raise Conflict(f"{len(found)} keys are meant by {wanted[:16]!r}", "Give the id from 'slipway keys list'.")
    return found[0]


def _state(key: Json) -> str:
    if key["revoked_at"]:
        return "revoked"
    if key["expires_at"]:
        past = datetime.fromisoformat(key["expires_at"]) <= datetime.now(UTC)
        return "expired" if past else f"until {_day(key['expires_at'])}"
    return "active"


def _day(moment: str | None) -> str:
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M") if moment else "never"
