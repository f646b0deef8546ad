"""Looking after one download's agent: started, found again, started anew when it is lost, and removed in the end.

::

    claim ──► look (provider, no session) ──► apply, if the row still says what it said

                     no agent                                  it reports
    queued ──fetch──► provider: pending ─► running ─────────────────────────► downloading ─► … ─► done | failed
       ▲                                      │ ends, lost, never reports          │ silent            │
       └──────────── new boot, later ─────────┴────────────────────────────────────┘             delete until absent

The row drives the agent, not the instances that wait for it: they may come and go, there is one agent, and when
nobody wants the weights any more somebody still has to remove it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from control_plane import leases
from control_plane.context import Context
from control_plane.downloads import agents, repository, service
from control_plane.downloads.failures import TransientFailure
from control_plane.downloads.states import FINAL_STATES, DownloadState
from control_plane.downloads.tables import Download
from control_plane.errors import SlipwayError, Unavailable
from control_plane.providers.base import Provider, ProviderUnavailable, ReplicaState, ReplicaStatus, WeightsFetcher

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 2.0
_UNAVAILABLE_S = 5.0
#: Seconds that a running agent has for its first report.
_START_S = 120.0
#: Seconds that an agent gets to end by itself: what is on disk stays, however it ends.
_GRACE_S = 5.0
#: "absent" is believed no sooner than this after the last boot's end: listings lag.
_SETTLED_S = 10.0
#: Seconds after which an agent that is not gone deserves a person's attention.
_ALERT_AFTER_S = 120.0
_LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True)
class Verdict:
    """What a look found out.

    :ivar lost: this boot is over and brought nothing to an end; another one follows.
    :ivar refused: there cannot be an agent.
    :ivar silent: it runs and has stopped reporting.
    :ivar excused: it waits for something that is not its fault.
    :ivar gone: it is surely not there any more.
    """

    reason: str | None = None
    next_step: str | None = None
    look_again_s: float = _LOOK_EVERY_S
    lost: bool = False
    refused: bool = False
    silent: bool = False
    excused: bool = False
    gone: bool = False


class _Claim(NamedTuple):
    token: UUID
    download: Download


def drive(context: Context, download_id: UUID) -> None:
    """Do what is due for an agent; nothing if nothing is, or somebody else is at it."""
    claim = _claim(context, download_id)
    if claim is not None:
        _apply(context, claim, _look(context, claim.download))


def _claim(context: Context, download_id: UUID) -> _Claim | None:
    now = context.clock.now()
    with context.database.transaction() as session:
        download = repository.get(session, download_id)
        if download is None or not download.location:
            return None
        if download.next_attempt_at is None or service.pauses(download, now):
            return None
        token = leases.claim(session, Download, download_id, now=now, lease=service.AGENT_LEASE)
        if token is None:
            return None
        download = repository.find_for_update(session, download_id)
    return _Claim(token, download) if download is not None else None


# Look.


def _look(context: Context, download: Download) -> Verdict:
    try:
        provider = context.providers.get(download.provider or "")
        if provider is None:
            detail = f"provider {download.provider!r} is not configured"
            raise ProviderUnavailable(detail, "Name it in SLIPWAY_PROVIDERS again.")
        if download.state in FINAL_STATES:
            return _remove(context, download, provider)
        return _attend(context, download, provider)
    except Unavailable as error:
        final = download.state in FINAL_STATES
        pause_s = _pause_s(context, download) if final else _UNAVAILABLE_S
        return Verdict(error.detail, error.next_step, look_again_s=pause_s, excused=True)
    except SlipwayError as error:
        if download.state in FINAL_STATES:
            return Verdict(error.detail, error.next_step, look_again_s=_LONGEST_PAUSE_S)
        return Verdict(error.detail, error.next_step, refused=True)


def _remove(context: Context, download: Download, provider: Provider) -> Verdict:
    """Asked for ever."""
    name, ended_for_s = agents.resource_name(download.id), _ended_for_s(context, download)
    status = provider.find(name)
    if status.state is ReplicaState.ABSENT:
        if provider.exact or ended_for_s >= _SETTLED_S:
            return Verdict(gone=True)
        return Verdict(look_again_s=_SETTLED_S - ended_for_s)
    if ended_for_s > _ALERT_AFTER_S:
        logger.error("the agent %s of provider %s is not gone after %.0f s", name, provider.name, ended_for_s)
    provider.delete(name, boot_token=status.boot_token, grace_s=_GRACE_S)
    return Verdict(look_again_s=_pause_s(context, download))


def _attend(context: Context, download: Download, provider: Provider) -> Verdict:
    name, began = agents.resource_name(download.id), download.state != DownloadState.QUEUED
    status = provider.find(name)
    if status.state is ReplicaState.ABSENT:
        if began:
            return Verdict("the agent has vanished", lost=True)
        if not isinstance(provider, WeightsFetcher):
            return Verdict(f"provider {provider.name} has no storage of its own", "Launch again.", refused=True)
        status = provider.fetch(agents.fetch_spec(context, download))
    if status.boot_token != download.boot_token:
        provider.delete(name, boot_token=status.boot_token, grace_s=_GRACE_S)
        return Verdict("waiting for the earlier agent to end", look_again_s=1.0, excused=True)
    if status.state is ReplicaState.PENDING:
        return Verdict(status.reason or "the agent waits to be started", excused=True)
    if status.state is ReplicaState.RUNNING:
        return _not_reporting(context, download, began=began)
    return Verdict(_last_words(provider, status), "Look at the agent's log with the provider's own tools.", lost=True)


def _not_reporting(context: Context, download: Download, *, began: bool) -> Verdict:
    if began:
        return Verdict(f"the agent has been silent for {agents.SILENT_S:.0f} s", silent=True)
    waited_s = (context.clock.now() - download.queued_at).total_seconds()
    if waited_s < _START_S:
        return Verdict(download.reason or "the agent is starting")
    return Verdict(
        f"the agent has not reported for {waited_s:.0f} s",
        f"Check that {context.settings.agent_url} (SLIPWAY_AGENT_URL) can be reached from there.",
        lost=True,
    )


def _last_words(provider: Provider, status: ReplicaStatus) -> str:
    what = status.reason or (f"ended with exit code {status.exit_code}" if status.exit_code is not None else "ended")
    try:
        lines = provider.logs(status.name, tail_bytes=4096).strip().splitlines()
    except SlipwayError:
        lines = []
    said = f": {lines[-1][:500]}" if lines else ""
    return f"the agent was lost ({what}){said}"


def _ended_for_s(context: Context, download: Download) -> float:
    """Never negative, though the clock may be set back."""
    return max(0.0, (context.clock.now() - (download.finished_at or download.created_at)).total_seconds())


def _pause_s(context: Context, download: Download) -> float:
    """Look often at first, then less and less."""
    return min(_LONGEST_PAUSE_S, max(_LOOK_EVERY_S / 2, _ended_for_s(context, download) / 10))


# Apply.


def _apply(context: Context, claim: _Claim, verdict: Verdict) -> None:
    before = claim.download
    with context.database.transaction() as session:
        if not leases.release(session, Download, before.id, claim.token):
            return
        download = repository.find_for_update(session, before.id)
        if download is None or _key(download) != _key(before):
            return  # it reported, or somebody asked for something else: the next look begins from there
        now = context.clock.now()
        download.next_attempt_at = now + timedelta(seconds=verdict.look_again_s)
        if download.state in FINAL_STATES:
            if verdict.gone:
                download.boot_token = download.next_attempt_at = None
        elif verdict.refused:
            service.end(download, context, DownloadState.FAILED, reason=verdict.reason, next_step=verdict.next_step)
        elif verdict.lost:
            agents.begin_boot(context, download)
            failure = TransientFailure(verdict.reason or "the agent was lost", verdict.next_step)
            service.put_off(context, download, failure, agents.BACKOFF, moved=False)
        else:
            _wait(context, download, verdict)
        if before.state not in FINAL_STATES and download.state in FINAL_STATES:
            agents.tell_instances(session, context, download)
        session.add(download)


def _wait(context: Context, download: Download, verdict: Verdict) -> None:
    download.reason, download.next_step = verdict.reason, verdict.next_step
    if verdict.silent or verdict.excused:
        download.state, download.bytes_per_s = DownloadState.QUEUED, 0.0
        download.queued_at = context.clock.now()


def _key(download: Download) -> tuple[object, ...]:
    """What a report or a user's change alters."""
    return download.state, download.boot_token, download.next_attempt_at
