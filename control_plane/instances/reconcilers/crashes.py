"""What follows from the end of a boot: another one after a pause, or giving up with the engine's last words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from control_plane.instances.lifecycle import Phase
from control_plane.instances.reconcilers.situation import Outcome, Situation, backoff_s, fail
from control_plane.instances.replicas import ReplicaValues, new_boot
from control_plane.instances.tables import Replica
from control_plane.providers.base import ReplicaState, ReplicaStatus

#: Crashes in a row after which trying again is pointless.
MAX_RESTARTS = 5
#: A boot that was ready for this long was a good one: the next crash counts as the first.
STABLE_S = 300.0
#: ``slipway-serve`` ends with it when the model cannot be served as asked; trying again would change nothing.
CANNOT_SERVE = 2

_LOG_BYTES = 4000
_OWN_LINES = "[slipway]"
_KILLED_HINT = "If nobody killed it, the machine ran out of memory: choose a smaller model or a shorter context."


@dataclass(frozen=True)
class Crash:
    """``values`` prepare the next boot, in ``pause_s`` seconds; ``final`` says that there should be none."""

    reason: str
    values: ReplicaValues
    pause_s: float = 0.0
    final: bool = False
    next_step: str | None = None


def after_exit(situation: Situation, replica: Replica, status: ReplicaStatus) -> Crash:
    """Judge a replica whose process ended, or that its provider does not know any more."""
    if status.state is not ReplicaState.EXITED or status.boot_token != replica.boot_token:
        return Crash("the engine is gone, its host was restarted; starting it again", new_boot())
    code = status.exit_code or 0
    if code == CANNOT_SERVE and replica.ready_at is None:
        words = last_words(situation, replica, lines=1) or "it did not say why"
        reason = f"the engine cannot serve this model: {words.removeprefix('slipway-serve: error: ')}"
        return Crash(reason, {"last_exit_code": code}, final=True, next_step="Change what it names, then start again.")
    return _again_or_never(situation, replica, f"engine exited with code {code}", code)


def after_silence(situation: Situation, replica: Replica, what: str) -> Crash:
    """Judge a replica that still runs but shows no sign of life; its next boot begins with ending this one."""
    return _again_or_never(situation, replica, what, None)


def down(crash: Crash, replicas: Mapping[UUID, ReplicaValues]) -> Outcome:
    """The instance has no engine left because of ``crash``."""
    if crash.final:
        return fail(crash.reason, crash.next_step, replicas)
    return Outcome(
        crash.reason, crash.next_step, move_to=Phase.PROVISIONING, look_again_in_s=crash.pause_s, replicas=replicas
    )


def last_words(situation: Situation, replica: Replica, *, lines: int) -> str:
    """The last ``lines`` non-empty lines that the engine itself wrote."""
    log = situation.provider(replica.provider).logs(replica.resource_name, tail_bytes=_LOG_BYTES)
    own = [line.strip() for line in log.splitlines() if line.strip() and not line.startswith(_OWN_LINES)]
    return "\n".join(own[-lines:])


def _again_or_never(situation: Situation, replica: Replica, what: str, code: int | None) -> Crash:
    now = situation.now
    was_stable = replica.ready_at is not None and (now - replica.ready_at).total_seconds() >= STABLE_S
    restarts = 1 if was_stable else replica.restarts + 1
    next_step = _KILLED_HINT if code == -9 else "See the instance's log."
    delay = backoff_s(restarts)
    values = new_boot() | {
        "restarts": restarts,
        "restart_at": now + timedelta(seconds=delay),
        "last_exit_code": code,
        "condition": what,
    }
    if restarts > MAX_RESTARTS:
        reason = f"{what}, for the {restarts}th time in a row"
        words = last_words(situation, replica, lines=5)
        return Crash(f"{reason}\n{words}" if words else reason, values, final=True, next_step=next_step)
    return Crash(f"{what}; restart {restarts} in {delay:g} s", values, delay, next_step=next_step)
