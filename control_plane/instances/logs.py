"""An instance's logs: read from the provider, where they outlive the engine."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from control_plane.accounts.principal import Principal
from control_plane.context import Context
from control_plane.errors import NotFound, SlipwayError
from control_plane.instances import repository
from control_plane.instances.replicas import resource_name
from control_plane.instances.schemas import LogView
from control_plane.providers.base import Provider


class LogSource(NamedTuple):
    """Where one replica's log is."""

    provider: Provider
    name: str
    ordinal: int

    def read(self, offset: int) -> LogView:
        """What is there from ``offset`` on; a negative one counts from the end.

        :raises ProviderUnavailable: it cannot be read now.
        """
        parts: list[str] = []
        for next_offset, text in self.provider.follow_logs(self.name, offset=offset):
            parts.append(text)
            offset = next_offset
        return LogView(replica=self.ordinal, text="".join(parts), next_offset=max(offset, 0))


def source(context: Context, principal: Principal, instance_id: UUID, ordinal: int | None) -> LogSource:
    """The log of a replica, whether it lives or not; without ``ordinal`` that of the first which stays.

    :raises NotFound: no such instance or replica.
    """
    with context.database.reading() as session:
        instance = repository.find(session, principal.team_id, instance_id)
        replicas = repository.replicas(session, [instance_id])
    if instance is None:
        raise NotFound("there is no such instance")
    ordinals = [
        replica.ordinal for replica in sorted(replicas, key=lambda r: (r.retiring_since is not None, r.ordinal))
    ]
    if ordinal is None:
        ordinal = ordinals[0] if ordinals else 0
    if ordinal not in (ordinals or range(instance.replica_count)):
        there = ", ".join(str(number) for number in sorted(ordinals) or range(instance.replica_count))
        raise NotFound(f"{instance.name} has no replica {ordinal}", f"There is: {there}.")
    provider = context.providers.get(instance.provider)
    if provider is None:
        raise SlipwayError(f"provider {instance.provider!r} is not configured", "Name it in SLIPWAY_PROVIDERS again.")
    return LogSource(provider, resource_name(instance, ordinal), ordinal)
