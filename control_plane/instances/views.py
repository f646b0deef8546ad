"""Rows → what the API shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from sqlmodel import Session

from control_plane.context import Context
from control_plane.downloads.schemas import DownloadProgress
from control_plane.downloads.service import find_progress
from control_plane.instances import billing, repository
from control_plane.instances.replicas import is_given_up
from control_plane.instances.schemas import InstanceView, ReplicaView, ResourceLimits
from control_plane.instances.tables import Instance, Replica


def view(session: Session, context: Context, instance: Instance) -> InstanceView:
    """One instance."""
    return views(session, context, [instance])[0]


def views(session: Session, context: Context, instances: Sequence[Instance]) -> list[InstanceView]:
    """Several instances, in their order; what they share is read once."""
    replicas: dict[UUID, list[Replica]] = defaultdict(list)
    for replica in repository.replicas(session, [instance.id for instance in instances]):
        replicas[replica.instance_id].append(replica)
    wanted = {instance.download_id for instance in instances if instance.download_id is not None}
    downloads: dict[UUID | None, DownloadProgress | None] = {
        download_id: find_progress(session, context, download_id) for download_id in wanted
    }
    return [
        _view(
            context, instance, replicas[instance.id], downloads[instance.download_id] if instance.download_id else None
        )
        for instance in instances
    ]


def _view(
    context: Context, instance: Instance, replicas: list[Replica], download: DownloadProgress | None
) -> InstanceView:
    return InstanceView(
        id=instance.id,
        name=instance.name,
        slug=instance.slug,
        model=instance.model,
        revision=instance.revision,
        commit_sha=instance.commit_sha,
        phase=instance.phase,
        reason=instance.reason,
        next_step=instance.next_step,
        since=instance.since,
        next_attempt_at=instance.next_attempt_at,
        desired=instance.desired,
        hardware=instance.hardware,
        accelerator_count=instance.accelerator_count,
        limits=ResourceLimits(**instance.limits),
        replica_count=instance.replica_count,
        generation=instance.generation,
        quantization=instance.quantization,
        engine=instance.engine,
        api_url=f"{context.settings.public_url}/i/{instance.slug}/v1",
        direct_url=_direct_url(replicas),
        replicas=[_replica_view(replica) for replica in replicas],
        download=download,
        eta_s=download.eta_s if download else None,
        price_per_hour=instance.price_per_hour,
        cost_so_far=billing.cost_so_far(instance, billing.held(replicas), context.clock.now()),
        created_at=instance.created_at,
        terminated_at=instance.terminated_at,
    )


def _direct_url(replicas: list[Replica]) -> str | None:
    return next((f"{replica.url}/v1" for replica in replicas if replica.ready and replica.url), None)


def _replica_view(replica: Replica) -> ReplicaView:
    return ReplicaView(
        id=replica.id,
        ordinal=replica.ordinal,
        provider=replica.provider,
        url=replica.url,
        ready=replica.ready,
        condition=replica.condition,
        generation=replica.generation,
        retiring_since=replica.retiring_since,
        node=replica.node,
        restarts=replica.restarts,
        given_up=is_given_up(replica),
        last_exit_code=replica.last_exit_code,
        ready_at=replica.ready_at,
    )
