"""Starting one replica so that there are never two of it."""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.catalog.catalog import get_catalog
from control_plane.hub.facts import has_chat_template
from control_plane.hub.folder import FolderModel
from control_plane.instances.reconcilers.release import DRAIN_S
from control_plane.instances.reconcilers.situation import Situation
from control_plane.instances.replicas import ReplicaValues
from control_plane.instances.tables import Instance, Replica
from control_plane.keys import installation_id, replica_key
from control_plane.providers.base import Limits, ReplicaSpec, ReplicaState, Weights


@dataclass(frozen=True)
class Start:
    """``values`` for the row; ``waiting_for`` says what has to happen first, None when the replica is started."""

    values: ReplicaValues
    waiting_for: str | None = None


def start(situation: Situation, replica: Replica, weights: Weights) -> Start:
    """Have the present boot of ``replica`` running, whatever an earlier, interrupted attempt has left.

    The provider is asked before it is told: a ``create`` whose answer was lost is found here by its boot token.

    :raises ProviderUnavailable: the outcome is unknown; look again.
    :raises ProviderError: the provider refuses for good.
    """
    provider = situation.provider(replica.provider)
    found = provider.find(replica.resource_name)
    if found.boot_token != replica.boot_token and found.state is ReplicaState.RUNNING:
        provider.delete(replica.resource_name, grace_s=DRAIN_S)
        return Start({}, "the engine of the earlier boot to end")
    if found.boot_token != replica.boot_token or found.state is ReplicaState.ABSENT:
        found = provider.create(_spec(situation, replica, weights))
    if found.boot_token != replica.boot_token:
        return Start({}, "another boot of the same replica to end")
    now = situation.now
    return Start({"url": found.url, "started_at": now, "last_seen_at": now, "restart_at": None, "condition": None})


def _spec(situation: Situation, replica: Replica, weights: Weights) -> ReplicaSpec:
    instance, settings = situation.instance, situation.context.settings
    return ReplicaSpec(
        name=replica.resource_name,
        owner=installation_id(settings),
        weights=weights,
        served_model_name=instance.model,
        hardware_id=instance.hardware or "",
        api_key=replica_key(settings, replica.resource_name, replica.boot_token),
        boot_token=replica.boot_token,
        accelerator_count=instance.accelerator_count,
        memory_bytes=instance.memory_bytes,
        limits=Limits(**instance.limits),
        labels={"instance": str(instance.id), "replica": str(replica.ordinal), "generation": str(replica.generation)},
        engine_options=_engine_options(instance, weights),
    )


def _engine_options(instance: Instance, weights: Weights) -> dict[str, str]:
    options = {name.replace("_", "-"): str(value) for name, value in instance.engine.items() if value is not None}
    entry = get_catalog().get(instance.model)
    if entry and entry.chat_template and weights.path and not has_chat_template(FolderModel(weights.path)):
        options["chat-template"] = entry.chat_template
    if instance.accelerator_count > 1:
        options["tensor-parallel-size"] = str(instance.accelerator_count)
    return options | {"quantization": instance.quantization}
