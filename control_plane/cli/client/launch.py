"""``slipway launch``: from a model's name to an API URL."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import uuid4

import typer

from control_plane.cli.client.api import Api
from control_plane.cli.client.output import print_json, print_line, say
from control_plane.cli.client.watch import RUNNING, show_progress
from control_plane.cli.configuration import JsonOption


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("launch")(launch)


def launch(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Hugging Face model id, or 'slipway/starter'.")],
    *,
    name: Annotated[str | None, typer.Option(help="What to call the instance (default: from the model).")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the model.")] = None,
    hardware: Annotated[str | None, typer.Option(help="Id from 'slipway hardware' (default: what fits).")] = None,
    quantization: Annotated[str | None, typer.Option(help="auto or none.")] = None,
    replicas: Annotated[int | None, typer.Option(min=1, help="How many engines serve it.")] = None,
    max_model_len: Annotated[int | None, typer.Option(min=1, help="Context in tokens.")] = None,
    max_num_seqs: Annotated[int | None, typer.Option(min=1, help="Most requests at once.")] = None,
    max_num_batched_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens per engine step.")] = None,
    kv_cache_memory: Annotated[int | None, typer.Option(min=1, help="Bytes of KV cache.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16.")] = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Return at once; 'slipway show' says how far it is.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds to wait (default: as long as it takes).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Launch a model, watch it come up, and print its API URL."""
    body: dict[str, Any] = {
        "model": model,
        "name": name,
        "revision": revision,
        "hardware": hardware,
        "quantization": quantization,
        "replicas": None if replicas is None else {"min": replicas, "max": replicas},
    }
    engine = {
        "max_model_len": max_model_len,
        "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": max_num_batched_tokens,
        "kv_cache_memory": kv_cache_memory,
        "dtype": dtype,
    }
    # What was not given is left to the server's own defaults.
    body = {field: value for field, value in body.items() if value is not None}
    if given := {option: value for option, value in engine.items() if value is not None}:
        body["engine"] = given
    with Api.open() as api:
        instance = api.post("/instances", body, headers={"Idempotency-Key": str(uuid4())})
        if not as_json:
            say(f"launching {instance['model']} as {instance['name']}")
        if not no_wait:
            instance = show_progress(api, instance, RUNNING, as_json=as_json, timeout_s=timeout)
    if as_json:
        print_json(instance)
        return
    if not no_wait:
        say(f"{instance['name']} is running; try: slipway chat {instance['name']}")
    print_line(instance["api_url"])
