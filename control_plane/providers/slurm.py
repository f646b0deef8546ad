"""The Slurm provider: a replica is a batch job, asked for through slurmrestd; its files lie on shared storage.

Slurm's submission is not idempotent: a lost answer, or two workers at once, give two jobs of one name. Exactly one of
them may run the replica: the one in ``claim.json``, which is written once. A worker that sees several jobs claims for
the lowest id, because every worker that looks after its own submission sees that one; a job that starts before anybody
has claimed does so for itself. The others are cancelled by the worker, or end at once when they start.

What a job does on its node, and how a run that was cut off is fenced, is told in ``slurm_jobs/start_script.py``.
"""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from importlib import resources

from control_plane.errors import Invalid, Unavailable
from control_plane.keys import installation_id
from control_plane.providers.base import (
    HardwareOffer,
    ProviderError,
    ReplicaSpec,
    ReplicaState,
    ReplicaStatus,
)
from control_plane.providers.slurm_jobs import submission
from control_plane.providers.slurm_jobs.job import Job
from control_plane.providers.slurm_jobs.node import CPU_HARDWARE, Partition, Tariff, offers
from control_plane.providers.slurm_jobs.rest import SlurmRest
from control_plane.providers.slurm_jobs.shared_folder import Boot, JobUser, ReplicaFolder, SharedFolder, Stop
from control_plane.providers.slurm_jobs.submission import JobOptions
from control_plane.providers.slurm_jobs.token import TokenSource
from control_plane.settings import Settings

#: Seconds after the engine's grace in which its job ends by itself; then Slurm is asked to kill it.
_END_MARGIN_S = 10.0


class SlurmProvider:
    """Asks slurmrestd for what lives, and the shared folder for what Slurm has forgotten."""

    name = "slurm"
    exact = False  # a node that is cut off runs on, and a submission can still arrive after it was given up

    def __init__(
        self,
        rest: SlurmRest,
        folder: SharedFolder,
        *,
        owner: str,
        user: JobUser,
        partition: str,
        options: JobOptions,
        tariff: Tariff,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rest = rest
        self._shared = folder
        self._owner = owner
        self._user = user
        self._partition_name = partition
        self._options = options
        self._tariff = tariff
        self._clock = clock
        self._script = (resources.files("control_plane.providers.slurm_jobs") / "start_script.py").read_text()
        self._last_offers: list[HardwareOffer] = []

    @classmethod
    def from_settings(cls, settings: Settings, *, clock: Callable[[], float] = time.time) -> SlurmProvider:
        """The cluster that ``settings`` name.

        :raises Invalid: they do not say enough.
        """
        if not settings.slurm_url:
            raise Invalid(
                "the slurm provider does not know its cluster", "Set SLIPWAY_SLURM_URL to slurmrestd's address."
            )
        owner, user = installation_id(settings), JobUser.named(settings.slurm_user or getpass.getuser())
        shared = settings.slurm_shared_dir or settings.data_dir / "slurm"
        tokens = TokenSource(user.name, settings.slurm_token_file, settings.slurm_jwt_key_file)
        return cls(
            SlurmRest(settings.slurm_url, tokens),
            SharedFolder(shared.expanduser().absolute(), owner, user),
            owner=owner,
            user=user,
            partition=settings.slurm_partition,
            options=JobOptions(
                settings.slurm_engine, settings.slurm_cpus, settings.slurm_time_limit_s, settings.slurm_requeue
            ),
            tariff=Tariff(settings.slurm_price_per_hour, settings.slurm_gpu_memory_gib),
            clock=clock,
        )

    def offers(self) -> list[HardwareOffer]:
        """The partition's processors, then its GPUs by type; while the cluster does not answer, what it had."""
        try:
            partition = self._partition()
            self._last_offers = offers(self._rest.nodes(), partition, self._tariff)
        except (Unavailable, ProviderError) as error:
            known = self._last_offers or [_UNKNOWN_HARDWARE]
            return [replace(offer, available=False, why_unavailable=error.detail, free_count=None) for offer in known]
        return self._last_offers

    def create(self, spec: ReplicaSpec) -> ReplicaStatus:
        """Queue a job for a replica, or return the replica that already has this name."""
        partition, nodes = self._partition(), self._rest.nodes()
        submission.check(spec, offers(nodes, partition, self._tariff))
        folder = self._shared.replica(spec.name)
        present = self._status(folder, spec.name, self._jobs(spec.name))
        ended = present.state in {ReplicaState.EXITED, ReplicaState.LOST}
        if present.state is not ReplicaState.ABSENT and not (ended and present.boot_token != spec.boot_token):
            return present
        here = folder.boot_folder(spec.boot_token)
        members = [node for node in nodes if partition.name in node.partitions]
        plan = submission.plan(spec, self._options, members, here)
        folder.prepare(Boot(spec.boot_token, spec.owner, dict(spec.labels)), plan, spec.api_key)
        submitted: set[int] = set()
        try:
            if not self._live(spec.name, spec.boot_token):
                job = submission.job(spec, self._options, partition.name, here)
                submitted.add(self._rest.submit(job, self._script))
        except ProviderError:
            folder.forget(spec.boot_token)
            raise
        self._settle(folder, spec, submitted)
        return self.find(spec.name)

    def find(self, name: str) -> ReplicaStatus:
        """The replica of this name; ``ABSENT`` if there is none."""
        folder = self._shared.replica(name)
        boot = folder.boot()
        claimed = folder.claimed(boot.token) if boot and boot.token else None
        if claimed is None:
            jobs = self._jobs(name)
        else:
            job = self._rest.job(claimed)
            jobs = [job] if job and self._is_ours(job) and job.name == name else []
        status = self._status(folder, name, jobs)
        if status.state is ReplicaState.ABSENT and boot and boot.token and folder.stopped(boot.token):
            folder.forget(boot.token)  # what a deletion began, the next look finishes
        return status

    def list_owned(self) -> list[ReplicaStatus]:
        """Every job with our tag, and every replica that has ended and was not deleted."""
        ours: dict[str, list[Job]] = {}
        for job in filter(self._is_ours, self._rest.jobs()):
            ours.setdefault(job.name, []).append(job)
        names = sorted({*ours, *self._shared.names()})
        statuses = (self._status(self._shared.replica(name), name, ours.get(name, [])) for name in names)
        return [status for status in statuses if status.state is not ReplicaState.ABSENT]

    def delete(self, name: str, *, boot_token: str | None, grace_s: float) -> None:
        """Let a replica drain: its job ends the engine, and Slurm is asked to where the job does not."""
        folder, jobs = self._shared.replica(name), [job for job in self._jobs(name) if job.live]
        boot = folder.boot()
        if boot_token is not None:
            jobs = [job for job in jobs if job.tag and job.tag.boot_token == boot_token]
            boot = boot if boot and boot.token == boot_token else None
        stop = folder.stop(boot.token, grace_s, self._clock()) if boot and boot.token and jobs else None
        for job in jobs:
            if job.waiting or self._is_overdue(boot, stop, job):
                self._rest.cancel(job.id)
        if not jobs and boot is not None and boot.token is not None:
            folder.forget(boot.token)

    def logs(self, name: str, *, tail_bytes: int) -> str:
        """The last ``tail_bytes`` of the replica's log; kept after its death."""
        return self._shared.replica(name).log.tail(tail_bytes).text

    def follow_logs(self, name: str, *, offset: int) -> Iterator[tuple[int, str]]:
        """New log text from ``offset`` (bytes) on, or from that far before the end where it is negative."""
        return self._shared.replica(name).log.follow(offset)

    def _partition(self) -> Partition:
        """
        :raises ProviderError: there is no such partition.
        """
        partitions = self._rest.partitions()
        for partition in partitions:
            if partition.name == self._partition_name or (not self._partition_name and partition.is_default):
                return partition
        wanted = f"partition {self._partition_name!r}" if self._partition_name else "default partition"
        there = ", ".join(partition.name for partition in partitions) or "none"
        raise ProviderError(f"the Slurm cluster has no {wanted}", f"Set SLIPWAY_SLURM_PARTITION; there are: {there}.")

    def _is_ours(self, job: Job) -> bool:
        return job.tag is not None and job.tag.owner == self._owner and job.user_id == self._user.uid

    def _jobs(self, name: str) -> list[Job]:
        return [job for job in self._rest.jobs() if job.name == name and self._is_ours(job)]

    def _live(self, name: str, boot_token: str) -> set[int]:
        """The live jobs of one boot."""
        jobs = self._jobs(name)
        return {job.id for job in jobs if job.live and job.tag and job.tag.boot_token == boot_token}

    def _settle(self, folder: ReplicaFolder, spec: ReplicaSpec, submitted: set[int]) -> None:
        """Choose one of the boot's jobs, unless one has been chosen, and cancel the others."""
        jobs = self._live(spec.name, spec.boot_token) | submitted
        if not jobs:
            return  # it has run and ended already, and has claimed for itself
        chosen = folder.claim(spec.boot_token, min(jobs))
        for job_id in jobs - {chosen}:
            self._rest.cancel(job_id)

    def _is_overdue(self, boot: Boot | None, stop: Stop | None, job: Job) -> bool:
        """Whether nobody will end this job but Slurm: it is no part of the present boot, or had its time."""
        if boot is None or stop is None or job.tag is None or job.tag.boot_token != boot.token:
            return True
        return self._clock() - stop.at > stop.grace_s + _END_MARGIN_S

    def _status(self, folder: ReplicaFolder, name: str, jobs: list[Job]) -> ReplicaStatus:
        boot = folder.boot()
        job = _chosen(folder, boot, jobs)
        if boot is None and (job is None or not job.live):
            return ReplicaStatus(name, ReplicaState.ABSENT)
        if job is not None and job.live:
            return self._living(folder, job)
        if boot is None or boot.token is None:
            return ReplicaStatus(name, ReplicaState.ABSENT)
        if folder.stopped(boot.token):
            return ReplicaStatus(name, ReplicaState.ABSENT)
        return _ended(folder, name, boot, boot.token, job)

    def _living(self, folder: ReplicaFolder, job: Job) -> ReplicaStatus:
        tag = job.tag
        token = tag.boot_token if tag else ""
        status = ReplicaStatus(
            job.name,
            ReplicaState.PENDING if job.waiting else ReplicaState.RUNNING,
            boot_token=token,
            labels=tag.labels if tag else {},
            created_at=datetime.fromtimestamp(job.submitted_at, UTC),
        )
        if job.waiting:
            return replace(status, reason=job.why_waiting)
        run = folder.run(token)
        if run is None or (run.job, run.number) != (job.id, job.run):
            return replace(status, node=job.node)  # it has just begun; an address of an earlier run means nothing
        address = folder.plan(token).get("addresses", {}).get(run.node, run.node)
        host = f"[{address}]" if ":" in address else address
        return replace(status, node=run.node, url=f"http://{host}:{run.port}")


def _chosen(folder: ReplicaFolder, boot: Boot | None, jobs: list[Job]) -> Job | None:
    """The job that is the replica: of the present boot the claimed one, else the oldest that lives, else the newest."""
    if boot is not None and boot.token is not None:
        claimed = folder.claimed(boot.token)
        mine = [job for job in jobs if job.tag and job.tag.boot_token == boot.token]
        jobs = [job for job in mine if claimed in {None, job.id}]
    live = sorted((job for job in jobs if job.live), key=lambda job: job.id)
    return live[0] if live else max(jobs, key=lambda job: job.id, default=None)


def _ended(folder: ReplicaFolder, name: str, boot: Boot, token: str, job: Job | None) -> ReplicaStatus:
    """A boot whose job is over, as Slurm and the job's last words tell it."""
    status = ReplicaStatus(name, ReplicaState.EXITED, boot_token=token, labels=boot.labels)
    run, end = folder.run(token), folder.end(token)
    node = run.node if run else None
    if job is not None and (why := job.why_taken_away):
        return replace(status, state=ReplicaState.LOST, reason=why, node=job.node or node)
    why = job.why_ended if job else None
    if end is not None and run is not None and (end.job, end.number) == (run.job, run.number):
        return replace(status, exit_code=end.exit_code, reason=end.reason or why, node=node)
    if job is not None:
        why = why or folder.last_words(token, job.id)
        return replace(status, exit_code=job.exit_code, reason=why, node=job.node or node)
    if folder.claimed(token) is None:
        return ReplicaStatus(name, ReplicaState.ABSENT)  # laid out, and never submitted
    reason = "Slurm does not know this replica's job any more, and the job left no word of its end"
    return replace(status, state=ReplicaState.LOST, reason=reason, node=node)


_UNKNOWN_HARDWARE = HardwareOffer(
    id=CPU_HARDWARE,
    provider=SlurmProvider.name,
    name="A Slurm cluster",
    accelerator="cpu",
    accelerator_count=0,
    memory_bytes=1,
    price_per_hour=0.0,
    available=False,
)
