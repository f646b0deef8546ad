"""What each tab of an instance's page shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from control_plane.errors import Conflict, SlipwayError
from control_plane.instances import service
from control_plane.instances.figures import figures
from control_plane.instances.lifecycle import Phase
from control_plane.instances.logs import source
from control_plane.instances.schemas import InstanceView
from web.instance_actions import actions_for, can_terminate
from web.snippets import snippets
from web.timeline import run_of
from web.visitor import Visitor

TABS = ("overview", "api", "logs", "metrics", "playground", "settings")
#: The timeline shows no more events than this.
MOST_EVENTS = 500
#: How much of the log the page begins with; the stream goes on from there.
LOG_TAIL_BYTES = 200_000

Values = dict[str, Any]


def head(visitor: Visitor, view: InstanceView, tab: str) -> Values:
    """What stands above the tabs."""
    return {
        "visitor": visitor,
        "instance": view,
        "tab": tab,
        "actions": actions_for(view),
        "can_terminate": can_terminate(view),
    }


def tab_values(visitor: Visitor, view: InstanceView, tab: str) -> Values:
    """What stands in ``tab``, one of :data:`TABS`."""
    return _SHOW[tab](visitor, view)


def overview(visitor: Visitor, view: InstanceView) -> Values:
    """How it came to be where it is."""
    events = service.events(visitor.context, visitor.principal, view.id, limit=MOST_EVENTS).items
    return {"steps": run_of(view, events), "events": events}


def api(view: InstanceView, key: str | None = None) -> Values:
    """How to call it; with ``key`` in the lines, or with the name of a variable."""
    return {"snippets": snippets(view.api_url, view.model, key), "issued": None, "error": None}


def settings(view: InstanceView) -> Values:
    """What can be changed."""
    return {
        "name": view.name,
        "name_error": None,
        "replicas": view.replica_count,
        "replicas_error": None,
        "can_resize": view.phase not in {Phase.TERMINATING, Phase.TERMINATED},
    }


def _logs(visitor: Visitor, view: InstanceView) -> Values:
    try:
        log = source(visitor.context, visitor.principal, view.id, ordinal=None).read(-LOG_TAIL_BYTES)
    except SlipwayError as error:
        return {"log": None, "problem": error}
    return {"log": log, "problem": None}


def _metrics(visitor: Visitor, view: InstanceView) -> Values:
    try:
        return {"figures": figures(visitor.context, visitor.principal, view.id), "problem": None}
    except Conflict as error:
        return {"figures": None, "problem": error}


def _playground(_: Visitor, view: InstanceView) -> Values:
    # The path alone: the browser may know this server by another name than public_url.
    return {"playground_url": f"{urlsplit(view.api_url).path}/chat/completions"}


_SHOW: dict[str, Callable[[Visitor, InstanceView], Values]] = {
    "overview": overview,
    "api": lambda _, view: api(view),
    "logs": _logs,
    "metrics": _metrics,
    "playground": _playground,
    "settings": lambda _, view: settings(view),
}
