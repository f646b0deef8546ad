"""What a step is given and what it gives back; reading and writing the rows is ``reconcile.py``'s business."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from sqlmodel import Session

from control_plane.context import Context
from control_plane.downloads.tables import Download
from control_plane.instances import weights as instance_weights
from control_plane.instances.brake import Brake, judge
from control_plane.instances.engine_probe import Probe
from control_plane.instances.lifecycle import Phase
from control_plane.instances.replicas import ReplicaValues
from control_plane.instances.silence import seconds_since
from control_plane.instances.tables import Instance, Replica
from control_plane.providers.base import Provider, ProviderUnavailable, Weights

#: Between two tries of something that failed: 1, 2, 4 … seconds, never more than this.
MAX_BACKOFF_S = 30.0


@dataclass(frozen=True)
class Situation:
    """An instance as its row was when the step began. The rows are detached copies: to read, not to write."""

    context: Context
    instance: Instance
    replicas: tuple[Replica, ...]
    download: Download | None
    probe: Callable[[str, str], Probe]

    @property
    def now(self) -> datetime:
        """The time."""
        return self.context.clock.now()

    def provider(self, name: str) -> Provider:
        """The provider called ``name``.

        :raises ProviderUnavailable: it was taken out of the settings while it still had replicas.
        """
        provider = self.context.providers.get(name)
        if provider is None:
            raise ProviderUnavailable(f"provider {name!r} is not configured", "Name it in SLIPWAY_PROVIDERS again.")
        return provider

    def weights(self) -> Weights | None:
        """The instance's weights; None while they are not where its replicas can read them.

        :raises SlipwayError: the provider, or a model that comes with Slipway, is not there any more.
        """
        provider = self.provider(self.instance.provider)
        return instance_weights.held(self.context.settings, self.instance, self.download, provider)

    def brake(self, provider: Provider) -> Brake:
        """Whether what looks gone at ``provider`` is to be left alone.

        :raises ProviderUnavailable: it cannot be asked.
        """
        return judge(self.context, provider)

    def seconds_in_phase(self) -> float:
        """How long the instance has been in its phase."""
        return seconds_since(self.instance.since, self.now)


class Event(NamedTuple):
    """A line of the instance's timeline that is no move; ``action`` without the leading ``instance.``."""

    action: str
    message: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What a step found out.

    ``reason`` and ``next_step`` answer "why is it still pending?", or go with the move. ``look_again_in_s`` None means
    that nothing is pending. ``attempt_failed`` counts towards the backoff. ``gone`` are replicas whose rows go.
    ``write`` runs in the transaction that applies the outcome, before the move.
    """

    reason: str
    next_step: str | None = None
    move_to: Phase | None = None
    look_again_in_s: float | None = 0.0
    attempt_failed: bool = False
    replicas: Mapping[UUID, ReplicaValues] = field(default_factory=dict)
    new_replicas: tuple[Replica, ...] = ()
    gone: tuple[UUID, ...] = ()
    events: tuple[Event, ...] = ()
    write: Callable[[Session, Instance], None] | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


def backoff_s(attempts: int) -> float:
    """Seconds to wait after ``attempts`` failures in a row (at least one)."""
    return min(MAX_BACKOFF_S, 2.0 ** min(attempts - 1, 10))


class Done(Protocol):
    """What a step did to replicas before it found that it cannot go on."""

    @property
    def values(self) -> Mapping[UUID, ReplicaValues]:
        """Changes of rows."""
        ...

    @property
    def gone(self) -> Sequence[UUID]:
        """Rows that go."""
        ...

    @property
    def events(self) -> Sequence[Event]:
        """Lines of the timeline."""
        ...


def fail(reason: str, next_step: str | None, done: Done | None = None) -> Outcome:
    """The instance cannot go on by itself; what it holds is released by ``reconcilers/failed.py``."""
    return _with(Outcome(reason, next_step, move_to=Phase.FAILED), done)


def try_again(situation: Situation, reason: str, next_step: str | None, done: Done | None = None) -> Outcome:
    """Something did not answer: wait, longer each time, and say so."""
    delay = backoff_s(situation.instance.attempts + 1)
    words = f"{reason}; trying again in {delay:g} s"
    return _with(Outcome(words, next_step, look_again_in_s=delay, attempt_failed=True), done)


def _with(outcome: Outcome, done: Done | None) -> Outcome:
    if done is None:
        return outcome
    return replace(outcome, replicas=done.values, gone=tuple(done.gone), events=tuple(done.events))
