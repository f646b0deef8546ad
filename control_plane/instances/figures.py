"""What an instance's engines are doing: their Prometheus figures, asked for and summed."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import httpx
from prometheus_client.parser import text_string_to_metric_families

from control_plane.accounts.principal import Principal
from control_plane.context import Context
from control_plane.errors import Conflict, NotFound
from control_plane.instances import repository
from control_plane.instances.engine_probe import engine_client
from control_plane.instances.schemas import EngineFigures
from control_plane.instances.tables import Replica
from control_plane.keys import replica_key

_RUNNING = "vllm:num_requests_running"
_WAITING = "vllm:num_requests_waiting"
_KV_USAGE = "vllm:kv_cache_usage_perc"
_PROMPT_TOKENS = "vllm:prompt_tokens_total"
_GENERATION_TOKENS = "vllm:generation_tokens_total"


def figures(context: Context, principal: Principal, instance_id: UUID) -> EngineFigures:
    """Ask every engine of an instance that is ready.

    :raises NotFound: no such instance.
    :raises Conflict: none of its engines answers.
    """
    with context.database.reading() as session:
        instance = repository.find(session, principal.team_id, instance_id)
        replicas = repository.replicas(session, [instance_id])
    if instance is None:
        raise NotFound("there is no such instance")
    samples = [found for replica in replicas if (found := _samples(context, replica))]
    if not samples:
        raise Conflict(f"{instance.name} is {instance.phase}: no engine answers", "Wait until it is running.")
    return summed(samples)


def summed(samples: Sequence[dict[str, float]]) -> EngineFigures:
    """The figures of several engines as one; a figure that an engine does not have counts as 0."""

    def total(name: str) -> float:
        return sum(values.get(name, 0.0) for values in samples)

    return EngineFigures(
        replicas_answering=len(samples),
        requests_running=int(total(_RUNNING)),
        requests_waiting=int(total(_WAITING)),
        kv_cache_usage=total(_KV_USAGE) / len(samples),
        prompt_tokens=int(total(_PROMPT_TOKENS)),
        generation_tokens=int(total(_GENERATION_TOKENS)),
    )


def parse(text: str) -> dict[str, float]:
    """The samples of Prometheus's text format, by name; labels are summed over."""
    values: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values[sample.name] = values.get(sample.name, 0.0) + sample.value
    return values


def _samples(context: Context, replica: Replica) -> dict[str, float] | None:
    if not (replica.ready and replica.url):
        return None
    key = replica_key(context.settings, replica.resource_name, replica.boot_token)
    try:
        response = engine_client().get(f"{replica.url}/metrics", headers={"Authorization": f"Bearer {key}"})
        response.raise_for_status()
        return parse(response.text)
    except (httpx.HTTPError, ValueError):
        return None
