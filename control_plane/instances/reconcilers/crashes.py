"""What follows from the end of a boot: another one after a pause, or giving up with the engine's last words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from control_plane.instances.reconcilers.situation import Situation, backoff_s
from control_plane.instances.replicas import MAX_RESTARTS, ReplicaValues, new_boot, over
from control_plane.instances.silence import seconds_since
from control_plane.instances.tables import Replica
from control_plane.providers.base import ReplicaStatus

#: A boot that was ready for this long was a good one: the next crash counts as the first.
STABLE_S = 300.0
#: ``slipway-serve`` ends with it when the model cannot be served as asked; trying again would change nothing.
CANNOT_SERVE = 2
#: A boot that was taken away before it was ever ready is followed by the next after this pause: where every machine is
#: taken away at once, asking without a pause would be a storm.
LOST_EARLY_PAUSE_S = 5.0

_LOG_BYTES = 4000
_OWN_LINES = "[slipway]"
_KILLED_HINT = "If nobody killed it, the machine ran out of memory: choose a smaller model or a shorter context."


@dataclass(frozen=True)
class Crash:
    """The end of a boot. ``values`` prepare the next one, or leave the replica as it is when it is given up."""

    reason: str
    values: ReplicaValues
    next_step: str | None = None
    #: Whether it was taken away, which is nobody's crash.
    lost: bool = False


def after_exit(situation: Situation, replica: Replica, status: ReplicaStatus) -> Crash:
    """Judge a replica whose process ended by itself."""
    code = status.exit_code or 0
    if code == CANNOT_SERVE and replica.ready_at is None:
        words = last_words(situation, replica, lines=1) or "it did not say why"
        reason = f"the engine cannot serve this model: {words.removeprefix('slipway-serve: error: ')}"
        # As if every restart had been tried: none would help.
        values = over() | {"restarts": MAX_RESTARTS + 1, "last_exit_code": code, "condition": reason[:500]}
        return Crash(reason, values, next_step="Change what it names, then start again.")
    return _again_or_never(situation, replica, status.reason or f"engine exited with code {code}", code)


def after_silence(situation: Situation, replica: Replica, what: str) -> Crash:
    """Judge a replica that still runs but shows no sign of life; its next boot begins with ending this one."""
    return _again_or_never(situation, replica, what, None)


def after_loss(situation: Situation, replica: Replica, what: str) -> Crash:
    """A replica was taken away, by ``what``: it is replaced at once, and that is no crash of the engine's."""
    values = new_boot(situation.instance.generation)
    if replica.ready_at is None:
        values["restart_at"] = situation.now + timedelta(seconds=LOST_EARLY_PAUSE_S)
    return Crash(f"{what}; starting another", values, lost=True)


def last_words(situation: Situation, replica: Replica, *, lines: int) -> str:
    """The last ``lines`` non-empty lines that the engine itself wrote."""
    log = situation.provider(replica.provider).logs(replica.resource_name, tail_bytes=_LOG_BYTES)
    own = [line.strip() for line in log.splitlines() if line.strip() and not line.startswith(_OWN_LINES)]
    return "\n".join(own[-lines:])


def _again_or_never(situation: Situation, replica: Replica, what: str, code: int | None) -> Crash:
    now = situation.now
    was_stable = seconds_since(replica.ready_at, now) >= STABLE_S
    restarts = 1 if was_stable else replica.restarts + 1
    next_step = _KILLED_HINT if code == -9 else "See the instance's log."
    delay = backoff_s(restarts)
    values = new_boot(situation.instance.generation) | {
        "restarts": restarts,
        "restart_at": now + timedelta(seconds=delay),
        "last_exit_code": code,
        "condition": what[:500],
    }
    if restarts <= MAX_RESTARTS:
        return Crash(f"{what}; restart {restarts} in {delay:g} s", values, next_step)
    words = last_words(situation, replica, lines=5)
    reason = f"{what}, for the {restarts}th time in a row"
    reason = f"{reason}\n{words}" if words else reason
    if code is not None:
        values = over() | {"restarts": restarts, "last_exit_code": code}
    return Crash(reason, values | {"condition": reason[:500]}, next_step)
