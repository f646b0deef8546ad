"""Starting one replica so that there are never two of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from control_plane.catalog.catalog import get_catalog
from control_plane.downloads.tables import Download
from control_plane.errors import SlipwayError
from control_plane.hub.facts import has_chat_template
from control_plane.hub.folder import FolderModel
from control_plane.instances.labels import labels_of
from control_plane.instances.lifecycle import Phase
from control_plane.instances.reconcilers.release import DRAIN_S
from control_plane.instances.reconcilers.situation import Situation
from control_plane.instances.replicas import ReplicaValues
from control_plane.instances.silence import silent_s
from control_plane.instances.tables import Instance, Replica
from control_plane.keys import installation_id, replica_key
from control_plane.providers.base import Limits, ReplicaSpec, ReplicaState, Weights

#: Between two tries of a start that the provider refused, while other replicas serve.
REFUSED_PAUSE_S = 15.0


@dataclass(frozen=True)
class Start:
    """``values`` for the row; ``wait`` says what has to happen first, None when the replica is started."""

    values: ReplicaValues
    wait: str | None = None


def start(situation: Situation, replica: Replica, weights: Weights) -> Start:
    """Have the present boot of ``replica`` running, whatever an earlier, interrupted attempt has left.

    The provider is asked before it is told: a ``create`` whose answer was lost is found here by its boot token. What is
    there of an earlier boot, dead or alive or returned with its node, is ended first.

    :raises ProviderUnavailable: the outcome is unknown; look again.
    :raises ProviderError: the provider refuses for good.
    """
    provider, name = situation.provider(replica.provider), replica.resource_name
    found = provider.find(name)
    if found.state is not ReplicaState.ABSENT and found.boot_token != replica.boot_token:
        provider.delete(name, boot_token=found.boot_token, grace_s=DRAIN_S)
        found = provider.find(name)
        if found.state is not ReplicaState.ABSENT and found.boot_token != replica.boot_token:
            return Start({}, "waiting for the engine of the earlier boot to end")
    if found.state is ReplicaState.ABSENT:
        found = provider.create(_spec(situation, replica, weights))
    if found.boot_token != replica.boot_token:
        return Start({}, "waiting for another boot of the same replica to end")
    now = situation.now
    if found.state is ReplicaState.PENDING:
        reason = found.reason or f"{provider.name} has not begun it"
        wait = reason if reason.startswith("waiting") else f"waiting: {reason}"
        waited_s = silent_s(replica, now)
        return Start({"condition": reason[:500], "node": found.node, "silent_s": waited_s, "looked_at": now}, wait)
    return Start(
        {
            "url": found.url,
            "node": found.node,
            "condition": None,
            "restart_at": None,
            "silent_s": 0.0,
            "looked_at": now,
            "started_at": now,
            "last_seen_at": now,
        }
    )


def refused(situation: Situation, replica: Replica, error: SlipwayError) -> ReplicaValues:
    """A replica could not be started: that is its condition; beside others that serve, the next try can wait."""
    now = situation.now
    values: ReplicaValues = {
        "condition": error.detail[:500],
        "silent_s": silent_s(replica, now),
        "looked_at": now,
    }
    if situation.instance.phase == Phase.RUNNING:
        values["restart_at"] = now + timedelta(seconds=REFUSED_PAUSE_S)
    return values


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
        labels=labels_of(instance, replica),
        engine_options=_engine_options(instance, weights, situation.download),
    )


def _engine_options(instance: Instance, weights: Weights, download: Download | None) -> dict[str, str]:
    options = {name.replace("_", "-"): str(value) for name, value in instance.engine.items() if value is not None}
    entry = get_catalog().get(instance.model)
    if entry and entry.chat_template and not _brings_chat_template(weights, download):
        options["chat-template"] = entry.chat_template
    if instance.accelerator_count > 1:
        options["tensor-parallel-size"] = str(instance.accelerator_count)
    return options | {"quantization": instance.quantization}


def _brings_chat_template(weights: Weights, download: Download | None) -> bool:
    """Weights that lie elsewhere cannot be looked into: what was known when they were fetched is noted."""
    if weights.path is not None:
        return has_chat_template(FolderModel(weights.path))
    return download is None or download.has_chat_template is not False
