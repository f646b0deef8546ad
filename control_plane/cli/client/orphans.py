"""``slipway orphans``: what providers have that no row wants, for administrators."""

from __future__ import annotations

from typing import Annotated

import typer

from control_plane.cli.client.api import Api, Json
from control_plane.cli.client.output import print_json, print_line, print_table, say
from control_plane.cli.client.text import duration
from control_plane.cli.configuration import JsonOption
from control_plane.errors import NotFound


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(orphans)


def orphans(
    adopt: Annotated[str | None, typer.Option(metavar="NAME", help="Make an instance of this one.")] = None,
    delete: Annotated[str | None, typer.Option(metavar="NAME", help="Have this one deleted.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List what providers have that no row wants; adopt or delete one of it."""
    if adopt and delete:
        raise typer.BadParameter("give one of --adopt and --delete", param_hint="orphans")
    with Api.open() as api:
        listed = api.get("/admin/orphans")
        if adopt or delete:
            _decide(api, listed, name=adopt or delete or "", verb="adopt" if adopt else "delete", as_json=as_json)
        elif as_json:
            print_json(listed)
        else:
            _show(listed)


def _decide(api: Api, listed: Json, *, name: str, verb: str, as_json: bool) -> None:
    orphan = next((orphan for orphan in listed["items"] if orphan["name"] == name), None)
    if orphan is None:
        raise NotFound(f"there is no orphan named {name!r}", "'slipway orphans' lists them.")
    answer = api.post(f"/admin/orphans/{orphan['id']}/{verb}")
    if as_json:
        print_json(answer)
    elif verb == "adopt":
        say(f"{name} is adopted as {answer['name']}: {answer['api_url']}")
    else:
        say(f"{name} is {answer['state']}")


def _show(listed: Json) -> None:
    print_table(
        ["PROVIDER", "UNMATCHED", "CHECKED", "TROUBLE"],
        [[p["name"], str(p["unmatched"]), _checked(p), p["error"] or p["brake"] or ""] for p in listed["providers"]],
        empty="no provider is configured",
    )
    if listed["items"]:
        print_line()
        print_table(
            ["NAME", "PROVIDER", "STATE", "WHY"],
            [[o["name"], o["provider"], o["state"], o["trouble"] or o["reason"]] for o in listed["items"]],
            empty="",
        )


def _checked(provider: Json) -> str:
    return "never" if provider["age_s"] is None else f"{duration(provider['age_s'])} ago"
