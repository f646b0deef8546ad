"""A job as Slurm reports it, and what its states and reasons mean in words."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

#: It waits for its first or next run.
WAITING = frozenset(
    {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
)
#: It holds hardware.
RUNNING = frozenset({"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"})

#: How ``start_script.py`` exits when it ended its engine because another run may have taken over.
FENCED = 75

#: The reasons of squeue(1) that people meet most.
_WAITS_FOR = {
    "Resources": "for hardware to become free",
    "Priority": "behind jobs of higher priority",
    "PartitionTimeLimit": "because its time limit is longer than the partition permits",
    "PartitionNodeLimit": "because it wants more nodes than the partition permits",
    "PartitionDown": "because the partition takes no jobs now",
    "PartitionInactive": "because the partition takes no jobs now",
    "ReqNodeNotAvail": "because nodes that it needs are down, drained or reserved",
    "Nodes_required_for_job_are_DOWN,_DRAINED_or_reserved_for_jobs_in_higher_priority_partitions": (
        "because every node that it could use is down, drained or reserved"
    ),
    "NodeDown": "because a node that it needs is down",
    "BeginTime": "for its turn: Slurm runs a job again only some time after its last run",
    "Dependency": "for another job to end",
    "JobHeldAdmin": "because an administrator holds it",
    "JobHeldUser": "because it is held: 'scontrol release' lets it go",
    "JobHoldMaxRequeue": "because it was run again too often",
    "launch_failed_requeued_held": "because a node could not start it; it is held until 'scontrol release'",
    "Licenses": "for a licence",
    "Reservation": "for its reservation to begin",
    "QOSMaxJobsPerUserLimit": "because you run as many jobs as you may",
    "QOSMaxGRESPerUser": "because you use as many GPUs as you may",
    "AssocMaxJobsLimit": "because your account runs as many jobs as it may",
    "AssocGrpGRES": "because your account uses as many GPUs as it may",
}

#: States in which it was taken away through no fault of the engine's.
_TAKEN_AWAY = {
    "PREEMPTED": "preempted by a job of higher priority",
    "NODE_FAIL": "{node} failed",
    "BOOT_FAIL": "{node} did not boot",
    "TIMEOUT": "its time limit of {limit} is over",
    "DEADLINE": "its deadline has passed",
    "CANCELLED": "cancelled in Slurm, not by Slipway",
    "REVOKED": "another cluster of the federation took it",
}


class Tag(NamedTuple):
    """What we write into a job's comment: whose it is, and which boot of which replica. Not secret."""

    owner: str
    boot_token: str
    labels: Mapping[str, str]

    def to_comment(self) -> str:
        """As JSON."""
        return json.dumps({"slipway": self.owner, "boot": self.boot_token, "labels": dict(self.labels)})

    @classmethod
    def from_comment(cls, comment: str) -> Tag | None:
        """The inverse; None for a comment that is none of ours."""
        try:
            value = json.loads(comment)
            return cls(str(value["slipway"]), str(value["boot"]), {str(k): str(v) for k, v in value["labels"].items()})
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


@dataclass(frozen=True)
class Job:
    """The part of a job's record that matters here.

    :ivar user_id: whose it is; anybody can write any comment, so a tag alone proves nothing.
    :ivar run: how often Slurm has run it again: 0 at first.
    :ivar submitted_at: seconds since 1970.
    :ivar exit_code: of the batch script; negative for a signal; None while there is none.
    """

    id: int
    name: str
    state: str
    reason: str
    tag: Tag | None
    user_id: int
    node: str | None
    run: int
    submitted_at: float
    exit_code: int | None
    time_limit_minutes: int | None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Job:
        """From slurmrestd's record."""
        state = str(value["job_state"])
        return cls(
            id=int(value["job_id"]),
            name=str(value.get("name") or ""),
            state=state,
            reason=str(value.get("state_reason") or "None"),
            tag=Tag.from_comment(value.get("comment") or ""),
            user_id=int(value["user_id"]),
            node=value.get("batch_host") or None,
            run=int(value.get("restart_cnt") or 0),
            submitted_at=float(value.get("submit_time") or 0),
            exit_code=None if state in WAITING | RUNNING else _exit_code(value.get("exit_code")),
            time_limit_minutes=value.get("time_limit") or None,
        )

    @property
    def waiting(self) -> bool:
        """Whether it is queued."""
        return self.state in WAITING

    @property
    def live(self) -> bool:
        """Whether it is queued or holds hardware."""
        return self.state in WAITING or self.state in RUNNING

    @property
    def why_waiting(self) -> str:
        """A sentence, Slurm's own word for it included, because that is what people search for."""
        words = _WAITS_FOR.get(self.reason)
        again = f" again, after {self.run} runs that were cut short," if self.run > 1 else ""
        again = " again, after a run that was cut short," if self.run == 1 else again
        if words is None:
            return (
                f"Slurm job {self.id} waits{again} ({self.reason})"
                if self.reason != "None"
                else (f"Slurm job {self.id} waits{again} to be looked at by the scheduler")
            )
        return f"Slurm job {self.id} waits{again} {words} ({self.reason})"

    @property
    def why_taken_away(self) -> str | None:
        """Why it ended through no fault of its own; None where it was its own."""
        if self.state == "FAILED" and self.exit_code == FENCED:
            return f"Slurm job {self.id}: node {self.node} was cut off from the shared folder, so the engine was ended"
        words = _TAKEN_AWAY.get(self.state)
        if words is None:
            return None
        node = f"node {self.node}" if self.node else "its node"
        limit = f"{self.time_limit_minutes} min" if self.time_limit_minutes else "the partition"
        return f"Slurm job {self.id}: {words.format(node=node, limit=limit)}"

    @property
    def why_ended(self) -> str | None:
        """What Slurm says about an end of its own; None where the exit code says it all."""
        if self.state == "OUT_OF_MEMORY":
            return "killed for want of memory: the engine used more than the job's limit"
        return None


def _exit_code(wait_status: Any) -> int | None:
    """As :func:`os.waitstatus_to_exitcode`: Slurm reports the status of wait(2)."""
    try:
        return os.waitstatus_to_exitcode(int(wait_status))
    except (TypeError, ValueError):
        return None
