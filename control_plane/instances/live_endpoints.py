"""REST of what goes on in an instance: the present as JSON, or events with ``Accept: text/event-stream``."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request

from control_plane.accounts.dependencies import PrincipalDep
from control_plane.accounts.principal import Principal
from control_plane.context import Context, ContextDep
from control_plane.downloads.schemas import DownloadProgress
from control_plane.instances import live, logs, service
from control_plane.instances.figures import figures
from control_plane.instances.schemas import EngineFigures, EventView, LogView
from control_plane.pagination import Page

router = APIRouter()

_LIVE: dict[int | str, dict[str, Any]] = {
    200: {"content": {live.EVENT_STREAM: {}}, "description": "Live with `Accept: text/event-stream`."}
}
_MAX_TAIL = 1 << 20
#: A running instance is looked at, and paid for, all the time.
_EVER_MOVING = frozenset({"next_attempt_at", "cost_so_far"})


class Watch(NamedTuple):
    """Who looks at which instance, and whether they want to go on looking."""

    context: Context
    principal: Principal
    instance_id: UUID
    is_live: bool


def _watch(request: Request, instance_id: UUID, context: ContextDep, principal: PrincipalDep) -> Watch:
    service.get(context, principal, instance_id)  # a live view of nothing would wait for ever
    return Watch(context, principal, instance_id, live.EVENT_STREAM in request.headers.get("Accept", ""))


WatchDep = Annotated[Watch, Depends(_watch)]


@router.get("/{instance_id}/events", response_model=Page[EventView], responses=_LIVE)
def list_events(
    watch: WatchDep,
    cursor: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 200,
    last_event_id: Annotated[UUID | None, Header()] = None,
) -> Any:
    """The timeline, oldest first. Live: ``state`` (the whole instance, when it changed) and ``event`` (new lines)."""
    context, principal, instance_id, is_live = watch
    if not is_live:
        return service.events(context, principal, instance_id, cursor=cursor, limit=limit)
    timeline = live.Timeline(context, principal, instance_id, last_event_id or cursor)
    state = live.Changing("state", lambda: service.get(context, principal, instance_id), _EVER_MOVING)
    return live.stream(state, timeline)


@router.get("/{instance_id}/logs", response_model=LogView, responses=_LIVE)
def read_log(
    watch: WatchDep,
    replica: Annotated[int | None, Query(ge=0, description="Its ordinal; by default the first.")] = None,
    tail_bytes: Annotated[int, Query(ge=1, le=_MAX_TAIL)] = 1 << 16,
    offset: Annotated[int | None, Query(ge=0, description="Read on from here, not the tail.")] = None,
    last_event_id: Annotated[int | None, Header(ge=0)] = None,
) -> Any:
    """The end of a replica's log, kept after its death. Live: ``log`` for every new piece."""
    source = logs.source(watch.context, watch.principal, watch.instance_id, replica)
    begin = -tail_bytes if offset is None else offset
    if watch.is_live:
        return live.stream(live.Log(source, begin if last_event_id is None else last_event_id))
    return source.read(begin)


@router.get("/{instance_id}/metrics", response_model=EngineFigures, responses=_LIVE)
def read_metrics(watch: WatchDep) -> Any:
    """What the engines are doing. Live: ``metrics`` when it changed; nothing while no engine answers."""
    context, principal, instance_id, is_live = watch
    if is_live:
        return live.stream(live.Changing("metrics", lambda: figures(context, principal, instance_id)))
    return figures(context, principal, instance_id)


@router.get("/{instance_id}/downloads", response_model=Page[DownloadProgress], responses=_LIVE)
def list_downloads(watch: WatchDep) -> Any:
    """The weights on their way: none, or the one download that the instance shares. Live: ``downloads``."""
    context, principal, instance_id, is_live = watch

    def page() -> Page[DownloadProgress]:
        progress = service.get(context, principal, instance_id).download
        return Page(items=[progress] if progress else [])

    return live.stream(live.Changing("downloads", page)) if is_live else page()
