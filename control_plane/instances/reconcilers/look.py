"""One look at one replica that has been started: is it there, does it answer, does it get on?"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from control_plane.instances.engine_probe import Probe
from control_plane.instances.reconcilers.crashes import Crash, after_exit, after_loss, after_silence, last_words
from control_plane.instances.reconcilers.release import ABSENT_ENOUGH
from control_plane.instances.reconcilers.situation import Situation
from control_plane.instances.replicas import ReplicaValues, over
from control_plane.instances.silence import HUNG_S, UNREACHABLE_S, seconds_since, silent_s
from control_plane.instances.tables import Replica
from control_plane.providers.base import Provider, ReplicaState, ReplicaStatus

#: A provider's answers may be so old: "absent" is believed when it has been true for longer.
ABSENT_FOR_S = 5.0
#: What one look can add to that: a clock that jumps makes no answer older.
_ABSENT_GAP_S = 2.0
#: A healthy replica's row is written no more often.
_SEEN_EVERY_S = 10.0


@dataclass(frozen=True)
class Look:
    """What was seen. ``values`` are what changes in the row; ``crash`` when this boot is over."""

    replica: Replica
    values: ReplicaValues = field(default_factory=ReplicaValues)
    crash: Crash | None = None
    #: Why nothing is done about what looks gone.
    held_back: str | None = None


def look(situation: Situation, replica: Replica) -> Look:
    """Look at ``replica``.

    :raises ProviderUnavailable: nothing is known.
    """
    provider = situation.provider(replica.provider)
    status = provider.find(replica.resource_name)
    if status.state is ReplicaState.ABSENT or status.boot_token != replica.boot_token:
        return _missing(situation, replica, provider)
    match status.state:
        case ReplicaState.EXITED:
            return _ended(replica, after_exit(situation, replica, status))
        case ReplicaState.LOST:
            return _ended(replica, after_loss(situation, replica, _loss(replica, status)))
        case ReplicaState.PENDING:
            return _queued_again(situation, replica, status)
        case _:
            return _running(situation, replica, provider, status)


def _ended(replica: Replica, crash: Crash) -> Look:
    return Look(replica, crash.values, crash)


def _missing(situation: Situation, replica: Replica, provider: Provider) -> Look:
    """Its provider does not know it, or knows another boot under its name: an old answer, perhaps."""
    if not provider.exact:
        if replica.url and situation.probe(replica.url, replica.boot_token) is Probe.READY:
            return _well(situation, replica, replica.url, replica.node, "its provider does not list it, yet it answers")
        now, count = situation.now, replica.absent_count + 1
        absent_s = _absent_s(replica, now)
        values: ReplicaValues = {"ready": False, "absent_count": count, "silent_s": absent_s, "looked_at": now}
        if count < ABSENT_ENOUGH or absent_s < ABSENT_FOR_S:
            return Look(replica, values | {"condition": "its provider does not know it; asking again"})
        if (brake := situation.brake(provider)).on:
            return Look(replica, values | {"condition": brake.reason[:500]}, held_back=brake.reason)
    where = f" on {replica.node}" if replica.node else ""
    return _ended(replica, after_loss(situation, replica, f"the engine{where} is gone: its provider lost it"))


def _absent_s(replica: Replica, now: datetime) -> float:
    """Seconds for which it has been called absent, added up look by look, from its start or the last better answer."""
    before = replica.silent_s if replica.absent_count else 0.0
    return before + min(_ABSENT_GAP_S, seconds_since(replica.looked_at, now))


def _loss(replica: Replica, status: ReplicaStatus) -> str:
    node = status.node or replica.node
    where = f" on {node}" if node else ""
    return f"the engine{where} was taken away: {status.reason or 'its provider does not say why'}"


def _queued_again(situation: Situation, replica: Replica, status: ReplicaStatus) -> Look:
    """It ran, and waits for hardware again: another run of the same boot, at another address."""
    words = f"{_loss(replica, status)}; waiting for hardware again"
    values = over() | {"looked_at": situation.now, "condition": words[:500]}
    return Look(replica, values, Crash(words, values, lost=True))


def _running(situation: Situation, replica: Replica, provider: Provider, status: ReplicaStatus) -> Look:
    answer = situation.probe(status.url, replica.boot_token) if status.url else Probe.SILENT
    if answer is Probe.READY:
        return _well(situation, replica, status.url, status.node, None)
    if replica.ready_at is None:
        return _loading(situation, replica, status)
    return _unreachable(situation, replica, provider, answer)


def _well(situation: Situation, replica: Replica, url: str | None, node: str | None, condition: str | None) -> Look:
    as_noted = (replica.ready, replica.url, replica.node, replica.condition) == (True, url, node, condition)
    recently = replica.looked_at is not None and seconds_since(replica.looked_at, situation.now) < _SEEN_EVERY_S
    if as_noted and recently and replica.silent_s == 0 and replica.absent_count == 0:
        return Look(replica)
    now = situation.now
    values: ReplicaValues = {
        "ready": True,
        "url": url,
        "node": node,
        "condition": condition,
        "absent_count": 0,
        "silent_s": 0.0,
        "looked_at": now,
        "last_seen_at": now,
    }
    if replica.ready_at is None:
        values["ready_at"] = now
    return Look(replica, values)


def _loading(situation: Situation, replica: Replica, status: ReplicaStatus) -> Look:
    """Time alone is no verdict, large models take long: only an engine that says nothing new is given up."""
    now, limit = situation.now, situation.context.settings.start_timeout_s
    values: ReplicaValues = {"url": status.url, "node": status.node, "absent_count": 0, "looked_at": now}
    words = last_words(situation, replica, lines=1)[:300] or "loading"
    if words != replica.condition:
        return Look(replica, values | {"condition": words, "silent_s": 0.0, "last_seen_at": now})
    silent = silent_s(replica, now)
    if silent < limit:
        return Look(replica, values | {"silent_s": silent})
    return _ended(replica, after_silence(situation, replica, f"no sign of progress for {limit:g} s"))


def _unreachable(situation: Situation, replica: Replica, provider: Provider, answer: Probe) -> Look:
    silent = silent_s(replica, situation.now)
    still_used = replica.ready and silent < UNREACHABLE_S and answer is not Probe.STRANGER
    what = {
        Probe.STRANGER: f"somebody else answers at its address, for {silent:.0f} s",
        Probe.NOT_READY: f"not ready for {silent:.0f} s",
    }.get(answer, f"not answering for {silent:.0f} s")
    values: ReplicaValues = {
        "ready": still_used,
        "condition": what,
        "absent_count": 0,
        "silent_s": silent,
        "looked_at": situation.now,
    }
    if silent < HUNG_S:
        return Look(replica, values)
    if (brake := situation.brake(provider)).on:
        return Look(replica, values | {"condition": brake.reason[:500]}, held_back=brake.reason)
    return _ended(replica, after_silence(situation, replica, f"no answer for {silent:.0f} s"))
