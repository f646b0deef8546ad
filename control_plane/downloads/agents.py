"""Downloads that an agent does on a provider's own storage: who it is, what it is told, what its reports change.

A boot of an agent proves who it is by a token derived from its name and boot token; of all boots that ever were, the
row's one alone may report. An agent holds no lease: each report moves ``next_attempt_at``, the moment at which
``agent_driver.py`` looks after an agent that has been silent, further into the future.
"""

from __future__ import annotations

import hmac
from datetime import timedelta
from uuid import UUID

from sqlmodel import Session

from control_plane.context import Context
from control_plane.database import after_commit
from control_plane.downloads import repository, service
from control_plane.downloads.agent_schemas import AgentEnd, AgentFile, AgentJob, AgentReport
from control_plane.downloads.failures import TransientFailure
from control_plane.downloads.retry import Backoff
from control_plane.downloads.states import FINAL_STATES, DownloadState
from control_plane.downloads.tables import Download
from control_plane.errors import Conflict, Unauthenticated
from control_plane.keys import agent_token, installation_id
from control_plane.providers.base import FetchSpec

#: Seconds without a report after which somebody looks whether the agent is still there.
SILENT_S = 8.0
#: Boots without a new byte, and the waits between them.
BACKOFF = Backoff(attempts=6, first_s=2.0, longest_s=60.0)


class UnknownAgent(Unauthenticated):
    """No such download, or this is not its present boot."""

    code = "unknown_agent"
    next_step = "End: another boot of the agent has taken over, or nobody wants these weights any more."


def resource_name(download_id: UUID) -> str:
    """What the provider knows the agent by: the same for every boot, and for nothing else."""
    return f"slipway-fetch-{download_id.hex}"


def fetch_spec(context: Context, download: Download) -> FetchSpec:
    """The agent that the present boot of ``download`` is."""
    settings, name = context.settings, resource_name(download.id)
    boot_token = download.boot_token or ""
    return FetchSpec(
        name=name,
        owner=installation_id(settings),
        hardware_id=download.hardware or "",
        job_url=f"{settings.agent_url}/api/v1/agent/downloads/{download.id}",
        boot_token=boot_token,
        token=agent_token(settings, name, boot_token),
        labels={"download": str(download.id)},
    )


def job(context: Context, download_id: UUID, token: str) -> AgentJob:
    """What the agent is to fetch.

    :raises UnknownAgent: ``token`` is not that of the present boot.
    :raises Conflict: nothing is left to do.
    """
    settings = context.settings
    with context.database.reading() as session:
        download = _authenticate(context, repository.get(session, download_id), token)
        if download.state in FINAL_STATES:
            raise Conflict(f"this download is {download.state}", "End: there is nothing left to fetch.")
        files = repository.files(session, download_id)
        revisions = repository.revisions(session, download_id)
    return AgentJob(
        endpoint=download.endpoint,
        model=download.model,
        commit_sha=download.commit_sha,
        files=[AgentFile(path=f.path, size=f.bytes_total, etag=f.etag, sha256=f.sha256) for f in files],
        hub_token=settings.hub_token if download.endpoint == settings.hub_endpoint else None,
        offline=settings.hub_offline,
        revisions=revisions,
    )


def report(context: Context, download_id: UUID, token: str, told: AgentReport) -> bool:
    """Write down what the agent tells.

    :return: whether it is to stop.
    :raises UnknownAgent: ``token`` is not that of the present boot.
    """
    with context.database.transaction() as session:
        download = _authenticate(context, repository.find_for_update(session, download_id), token)
        if download.state in FINAL_STATES:  # cancelled; or this is the last word once more, whose answer was lost
            return download.state != DownloadState.DONE
        _note_progress(session, context, download, told)
        if told.end is not None:
            _conclude(session, context, download, told.end)
        session.add(download)
    return False


def begin_boot(context: Context, download: Download) -> None:
    """The next agent is another boot: whatever an earlier one still says is not heard."""
    download.boot_token = service.new_boot_token()
    download.state = DownloadState.QUEUED
    download.queued_at = context.clock.now()
    download.bytes_per_s = 0.0


def tell_instances(session: Session, context: Context, download: Download) -> None:
    """Those who wait for ``download`` go on at once, and its agent is removed."""
    for instance_id in repository.instances_using(session, download.id):
        _hint_after_commit(session, context, "instances.reconcile", instance_id)
    _hint_after_commit(session, context, service.DRIVE, download.id)


def _hint_after_commit(session: Session, context: Context, task: str, row_id: UUID) -> None:
    after_commit(session, lambda: context.hint(task, row_id))


def _authenticate(context: Context, download: Download | None, token: str) -> Download:
    """Unknown downloads and wrong tokens look the same."""
    if download is not None and download.boot_token:
        expected = agent_token(context.settings, resource_name(download.id), download.boot_token)
        if hmac.compare_digest(expected.encode(), token.encode()):
            return download
    raise UnknownAgent("this is not the present agent of a download")


def _note_progress(session: Session, context: Context, download: Download, told: AgentReport) -> None:
    """Bytes do not go backwards within a boot: a report that was overtaken on its way is older than it looks."""
    now = context.clock.now()
    first = download.state == DownloadState.QUEUED
    bytes_done = min(told.bytes_done, download.bytes_total or 0)
    if bytes_done > download.bytes_done:
        download.progress_at, download.reason, download.attempts = now, None, 0
    elif told.trouble:
        download.reason = told.trouble
    elif first:
        download.reason = None
    download.bytes_done = bytes_done if first else max(download.bytes_done, bytes_done)
    download.bytes_per_s = told.bytes_per_s
    download.state = DownloadState.VERIFYING if told.verifying else DownloadState.DOWNLOADING
    download.started_at = download.started_at or now
    download.next_attempt_at = now + timedelta(seconds=SILENT_S)
    for file in repository.files_named(session, download.id, told.files):
        entry = told.files[file.path]
        done = min(entry.bytes_done, file.bytes_total)
        file.bytes_done = done if first else max(file.bytes_done, done)
        file.state = entry.state
        session.add(file)


def _conclude(session: Session, context: Context, download: Download, end: AgentEnd) -> None:
    if end.path is not None:
        download.path, download.bytes_done = end.path, download.bytes_total or 0
        service.end(download, context, DownloadState.DONE)
    elif end.transient:
        begin_boot(context, download)
        failure = TransientFailure(_reason(end), end.next_step, retry_after_s=end.retry_after_s)
        service.put_off(context, download, failure, BACKOFF, moved=False)
    else:
        service.end(download, context, DownloadState.FAILED, reason=_reason(end), next_step=end.next_step)
    if download.state in FINAL_STATES:
        tell_instances(session, context, download)


def _reason(end: AgentEnd) -> str:
    return end.reason or "the agent gave no reason"
