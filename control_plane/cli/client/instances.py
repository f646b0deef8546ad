"""``slipway ps``, ``show``, ``stop``, ``start``, ``restart`` and ``rm``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from control_plane.cli.client.api import Api, Json
from control_plane.cli.client.find import find_instance
from control_plane.cli.client.output import print_facts, print_json, print_line, print_table, say
from control_plane.cli.client.text import duration, price
from control_plane.cli.client.watch import RUNNING, STOPPED, TERMINATED, Goal, download_text, show_progress
from control_plane.cli.configuration import JsonOption

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name, slug or id of the instance.")]
NoWaitOption = Annotated[bool, typer.Option("--no-wait", help="Return at once.")]
TimeoutOption = Annotated[float, typer.Option(min=0, help="Seconds to wait.")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    for command in (ps, show, stop, start, restart, rm):
        app.command()(command)


def ps(
    everything: Annotated[bool, typer.Option("--all", "-a", help="Terminated instances too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List instances."""
    with Api.open() as api:
        found = list(api.items("/instances", limit=200, live=not everything))
    if as_json:
        print_json(found)
        return
    print_table(
        ["NAME", "MODEL", "PHASE", "FOR", "API URL"],
        [[i["name"], i["model"], _phase(i), _age(i["since"]), i["api_url"]] for i in found],
        empty="no instances; launch one with 'slipway launch MODEL'",
    )


def show(name: NameArgument, as_json: JsonOption = False) -> None:
    """Show one instance: what it does, why, and what happened to it."""
    with Api.open() as api:
        instance = find_instance(api, name)
        events = list(api.items(f"/instances/{instance['id']}/events"))
    if as_json:
        print_json(instance | {"events": events})
        return
    facts = [
        ("name", instance["name"]),
        ("model", f"{instance['model']} at {instance['commit_sha'] or instance['revision']}"),
        ("phase", f"{instance['phase']} for {_age(instance['since'])}"),
        ("reason", instance["reason"]),
        ("next step", instance["next_step"] or ""),
        ("download", download_text(instance["download"]) if instance["download"] else ""),
        ("hardware", instance["hardware"] or ""),
        ("cost", f"${instance['cost_so_far']:.2f} so far, {price(instance['price_per_hour'])}"),
        ("API URL", instance["api_url"]),
        ("direct URL", instance["direct_url"] or ""),
        ("id", instance["id"]),
    ]
    print_facts([(key, value) for key, value in facts if value])
    print_line()
    if instance["replicas"]:
        print_table(
            ["REPLICA", "STATE", "GENERATION", "NODE", "CONDITION"],
            [
                [str(r["ordinal"]), _state(r), str(r["generation"]), r["node"] or "-", _line(r)]
                for r in _replicas(instance)
            ],
            empty="",
        )
        print_line()
    print_table(
        ["WHEN", "WHAT", "WHY"],
        [[_local_time(event["at"]), event["action"], event["message"]] for event in events],
        empty="nothing has happened yet",
    )


def stop(
    name: NameArgument, no_wait: NoWaitOption = False, timeout: TimeoutOption = 120, as_json: JsonOption = False
) -> None:
    """Stop an instance: requests under way are finished, weights are kept."""
    _ask(name, "stop", STOPPED, "is stopped", no_wait=no_wait, timeout=timeout, as_json=as_json)


def start(
    name: NameArgument, no_wait: NoWaitOption = False, timeout: TimeoutOption = 3600, as_json: JsonOption = False
) -> None:
    """Start a stopped or failed instance."""
    _ask(name, "start", RUNNING, "is running", no_wait=no_wait, timeout=timeout, as_json=as_json)


class Mode(StrEnum):
    """How engines are replaced."""

    ROLLING = "rolling"
    REPLACE = "replace"


def restart(
    name: NameArgument,
    mode: Annotated[
        Mode, typer.Option(help="One engine after another, so that no request is dropped, or all at once.")
    ] = Mode.ROLLING,
    no_wait: NoWaitOption = False,
    timeout: TimeoutOption = 3600,
    as_json: JsonOption = False,
) -> None:
    """Replace the engines of a running instance with fresh ones."""
    with Api.open() as api:
        instance = api.post(f"/instances/{find_instance(api, name)['id']}/restart", {"mode": mode.value})
        if not no_wait:
            goal = RUNNING._replace(generation=instance["generation"])
            instance = show_progress(api, instance, goal, as_json=as_json, timeout_s=timeout)
    _tell(instance, "is running again", no_wait=no_wait, as_json=as_json)


def rm(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    no_wait: NoWaitOption = False,
    timeout: TimeoutOption = 120,
    as_json: JsonOption = False,
) -> None:
    """Terminate an instance for good; its weights stay on disk."""
    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter("nobody is there to confirm; add --yes", param_hint="rm")
    with Api.open() as api:
        instance = find_instance(api, name)
        if not yes:
            typed = typer.prompt(f"This ends {instance['name']} for good. Type its name to confirm", err=True)
            if typed != instance["name"]:
                raise typer.BadParameter("that is not its name; nothing was done", param_hint="rm")
        instance = api.delete(f"/instances/{instance['id']}")
        if not no_wait:
            instance = show_progress(api, instance, TERMINATED, as_json=as_json, timeout_s=timeout)
    _tell(instance, "is terminated", no_wait=no_wait, as_json=as_json)


def _ask(name: str, verb: str, goal: Goal, outcome: str, *, no_wait: bool, timeout: float, as_json: bool) -> None:
    with Api.open() as api:
        instance = api.post(f"/instances/{find_instance(api, name)['id']}/{verb}")
        if not no_wait:
            instance = show_progress(api, instance, goal, as_json=as_json, timeout_s=timeout)
    _tell(instance, outcome, no_wait=no_wait, as_json=as_json)


def _tell(instance: Json, outcome: str, *, no_wait: bool, as_json: bool) -> None:
    if as_json:
        print_json(instance)
    else:
        say(
            f"{instance['name']} is {instance['phase']}: {instance['reason']}"
            if no_wait
            else f"{instance['name']} {outcome}"
        )


def _phase(instance: Json) -> str:
    download = instance["download"]
    if instance["phase"] == "downloading" and download and download["bytes_total"]:
        return f"downloading {download['bytes_done'] / download['bytes_total']:.0%}"
    return str(instance["phase"])


def _replicas(instance: Json) -> list[Json]:
    return sorted(instance["replicas"], key=lambda replica: int(replica["ordinal"]))


def _state(replica: Json) -> str:
    if replica["retiring_since"]:
        return "leaving"
    if replica["ready"]:
        return "ready"
    return "given up" if replica["given_up"] else "not ready"


def _line(replica: Json) -> str:
    return str(replica["condition"] or "").partition("\n")[0]


def _age(moment: str) -> str:
    return duration((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())


def _local_time(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")
