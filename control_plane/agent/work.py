"""The agent's work: the job, the transfer beside its reports, and the last word.

::

    job ──► transfer ─────────────────────► end told ──► exit
              │    every half second: bytes
              └──► cancelled? another boot?  stop at once; what is on disk stays for the next one

While the control plane does not answer, bytes go on arriving: they need nobody's leave. Only the beginning and the end
need an answer.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from control_plane.agent.client import ControlPlane, NoAnswer, NotWanted
from control_plane.agent.protocol import End, Job, Report
from control_plane.downloads.failures import TransferFailure, TransientFailure, explain
from control_plane.downloads.rate import RateMeter
from control_plane.downloads.retry import Backoff
from control_plane.downloads.states import DownloadState
from control_plane.downloads.transfer import Transfer, TransferOptions

logger = logging.getLogger(__name__)

#: Some two minutes for the job: a control plane that restarts is back by then.
_JOB_BACKOFF = Backoff(attempts=20, first_s=0.5, longest_s=10.0)
#: Some quarter of an hour for the last word; after that a new boot finds everything on disk and says it.
_END_BACKOFF = Backoff(attempts=60, first_s=0.5, longest_s=15.0)


@dataclass(frozen=True)
class AgentOptions:
    """How the agent behaves; times in seconds."""

    transfer: TransferOptions = field(default_factory=TransferOptions)
    report_interval_s: float = 0.5
    job_backoff: Backoff = _JOB_BACKOFF
    end_backoff: Backoff = _END_BACKOFF


class _Stopped(Exception):
    """Nobody wants the rest."""


async def fetch(control_plane: ControlPlane, cache: Path, options: AgentOptions | None = None) -> End | None:
    """Do the job into the Hugging Face cache at ``cache`` and tell how it ended.

    :return: the end that was told; None when it was stopped, because it was cancelled or another boot took over.
    :raises NoAnswer: the control plane could not be told, for a long time.
    :raises BadSetup: see :class:`control_plane.agent.client.BadSetup`.
    """
    options = options or AgentOptions()
    try:
        job = await _job(control_plane, options)
        work = _Work(control_plane, job, cache, options)
        return await work.run()
    except (NotWanted, _Stopped) as reason:
        logger.warning("stopped: %s", reason)
        return None


async def _job(control_plane: ControlPlane, options: AgentOptions) -> Job:
    for attempt in range(1, options.job_backoff.attempts):
        try:
            return await control_plane.job()
        except NoAnswer as error:
            logger.warning("%s; asking again", error)
            await asyncio.sleep(options.job_backoff.delay_s(attempt))
    return await control_plane.job()


class _Work:
    def __init__(self, control_plane: ControlPlane, job: Job, cache: Path, options: AgentOptions) -> None:
        self._control_plane = control_plane
        self._job = job
        self._options = options
        self._cache = cache
        #: What the control plane knows, so that a report carries changes only.
        self._told: dict[str, tuple[int, str]] = {}

    async def run(self) -> End:
        repository = self._job.repository
        logger.warning("fetching %s at %s into %s", repository.model, repository.commit_sha[:12], self._cache)
        try:
            transfer = Transfer(
                repository, self._job.files, self._cache, self._options.transfer, offline=self._job.offline
            )
        except OSError as error:
            end = _end_of(error)
            await self._tell_end(Report(0, 0.0, verifying=False, end=end))
            return end
        meter = RateMeter(datetime.now(UTC), transfer.bytes_done)
        end = await self._transfer(transfer, meter)
        logger.warning("done: %s" if end.path else "failed: %s", end.path or end.reason)
        await self._tell_end(self._report(transfer, meter, end))
        return end

    async def _transfer(self, transfer: Transfer, meter: RateMeter) -> End:
        """Run ``transfer`` beside its reports."""
        work = asyncio.create_task(self._fetch(transfer))
        try:
            while not work.done():
                await self._tell(self._report(transfer, meter))
                await asyncio.wait({work}, timeout=self._options.report_interval_s)
            return End(path=str(work.result()))
        except (TransferFailure, OSError, ExceptionGroup) as error:
            return _end_of(error)
        finally:
            work.cancel()
            await asyncio.wait({work})

    async def _fetch(self, transfer: Transfer) -> Path:
        snapshot = await transfer.run()
        for revision in self._job.revisions:
            await asyncio.to_thread(transfer.cache.set_ref, revision, self._job.repository.commit_sha)
        return snapshot

    def _report(self, transfer: Transfer, meter: RateMeter, end: End | None = None) -> Report:
        progress = {path: (done, str(state)) for path, (done, state) in transfer.progress().items()}
        return Report(
            bytes_done=transfer.bytes_done,
            bytes_per_s=meter.add(datetime.now(UTC), transfer.bytes_done),
            verifying=transfer.state == DownloadState.VERIFYING,
            trouble=transfer.trouble[:2000] if transfer.trouble else None,
            files={path: entry for path, entry in progress.items() if self._told.get(path) != entry},
            end=end,
        )

    async def _tell(self, report: Report) -> None:
        """One report; whether it arrives does not matter to the bytes.

        :raises NotWanted: another boot has taken over.
        """
        try:
            cancelled = await self._control_plane.report(report)
        except NoAnswer as error:
            logger.warning("%s; fetching goes on", error)
            return
        self._told |= report.files
        if cancelled:
            raise _Stopped("cancelled")

    async def _tell_end(self, report: Report) -> None:
        for attempt in range(1, self._options.end_backoff.attempts):
            try:
                await self._control_plane.report(report)
            except NoAnswer as error:
                logger.warning("%s; telling it again", error)
                await asyncio.sleep(self._options.end_backoff.delay_s(attempt))
            else:
                return
        await self._control_plane.report(report)


def _end_of(error: Exception) -> End:
    """What to tell about ``error``; one that nobody foresaw is logged and may pass."""
    failure = explain(error)
    if failure is None:
        logger.error("the download failed in a way nobody foresaw", exc_info=error)
        failure = TransientFailure(
            f"an internal error of the agent ({type(error).__name__})", "Look at the agent's log, report what it says."
        )
    return End(
        reason=failure.reason,
        next_step=failure.next_step,
        transient=isinstance(failure, TransientFailure),
        retry_after_s=getattr(failure, "retry_after_s", None),
    )
