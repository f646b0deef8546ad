"""``slipway models``, ``resolve`` and ``hardware``: what could be launched, and on what."""

from __future__ import annotations

from typing import Annotated

import typer

from control_plane.cli.client.api import Api, Json
from control_plane.cli.client.output import print_facts, print_json, print_line, print_table
from control_plane.cli.client.text import memory, number, price, size
from control_plane.cli.configuration import JsonOption


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    for command in (models, resolve, hardware):
        app.command()(command)


def models(
    query: Annotated[str | None, typer.Argument(metavar="[QUERY]", help="Words to look for.")] = None,
    *,
    family: Annotated[str | None, typer.Option(help="Only this family.")] = None,
    architecture: Annotated[str | None, typer.Option(help="Only this architecture.")] = None,
    max_parameters: Annotated[int | None, typer.Option(min=1, help="Only models up to this size.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only chat or only base models.")] = None,
    license_id: Annotated[str | None, typer.Option("--license", help="Only this licence.")] = None,
    gated: Annotated[bool | None, typer.Option(help="Only models that need (or do not need) an approval.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Search the catalog. Any other model of the hub can be launched by its id too."""
    filters = {
        "q": query,
        "family": family,
        "architecture": architecture,
        "max_parameters": max_parameters,
        "kind": kind,
        "license": license_id,
        "gated": gated,
    }
    with Api.open() as api:
        found = list(api.items("/models", **filters))
    if as_json:
        print_json(found)
        return
    print_table(
        ["MODEL", "KIND", "PARAMETERS", "CONTEXT", "LICENCE", "GATED", "RUNS WELL ON"],
        [
            [m["id"], m["kind"], number(m["parameters"]), str(m["context"]), m["license"], _yes(m["gated"]), _needs(m)]
            for m in found
        ],
        empty="no model in the catalog matches; 'slipway resolve ORG/NAME' looks up any model of the hub",
    )


def resolve(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Hugging Face model id.")],
    *,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    quantization: Annotated[str | None, typer.Option(help="auto or none.")] = None,
    max_model_len: Annotated[int | None, typer.Option(min=1, help="Context in tokens to plan for.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Requests of that length at once.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the facts of a model, whether it can be served, and on which hardware it fits."""
    wish = {
        "model": model,
        "revision": revision,
        "quantization": quantization,
        "max_model_len": max_model_len,
        "concurrency": concurrency,
    }
    with Api.open() as api:
        found = api.post("/models/resolve", {name: value for name, value in wish.items() if value is not None})
    if as_json:
        print_json(found)
        return
    method = found["quantization"]["method"] if found["quantization"] else "none"
    print_facts(
        [
            ("model", f"{found['model']} at {found['commit_sha']}"),
            ("architecture", found["architecture"] or "unknown"),
            ("parameters", number(found["parameters"])),
            ("weights", f"{size(found['weight_bytes'])} ({size(found['total_bytes'])} to download)"),
            ("context", f"{found['context'] or 'unknown'}"),
            ("quantization", method),
            ("licence", found["license"] or "unknown"),
            ("gated", _yes(found["gated"])),
            ("served", _served(found)),
        ]
    )
    print_line()
    print_table(
        ["HARDWARE", "FITS", "NEEDS", "OF", "AT ONCE", "PRICE"],
        [_fit_row(fit) for fit in found["fits"]],
        empty="no hardware to compare with",
    )


def hardware(as_json: JsonOption = False) -> None:
    """List the hardware that instances can run on."""
    with Api.open() as api:
        offers = list(api.items("/hardware"))
    if as_json:
        print_json(offers)
        return
    print_table(
        ["ID", "NAME", "MEMORY", "PRICE", "AVAILABLE"],
        [[o["id"], o["name"], memory(o["memory_bytes"]), price(o["price_per_hour"]), _availability(o)] for o in offers],
        empty="no hardware; 'slipway doctor' says what is wrong",
    )


def _fit_row(fit: Json) -> list[str]:
    verdict = "yes" if fit["fits"] else f"no: {fit['why_not']}"
    if not fit["available"]:
        verdict += f" (not available: {fit['why_unavailable'] or 'the provider does not say why'})"
    needs = memory(fit["memory"]["total"]) if fit["memory"] else "–"
    return [
        fit["hardware"],
        verdict,
        needs,
        memory(fit["memory_bytes"]),
        str(fit["max_sequences"]),
        price(fit["price_per_hour"]),
    ]


def _availability(offer: Json) -> str:
    return "yes" if offer["available"] else f"no: {offer['why_unavailable'] or 'the provider does not say why'}"


def _needs(model: Json) -> str:
    return model["hardware"] or "more than one device"


def _served(model: Json) -> str:
    return (model["note"] or "yes") if model["supported"] else f"no: {model['why_not']}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
