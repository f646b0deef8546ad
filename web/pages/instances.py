"""``/`` and ``/instances``: every instance of the team, live."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from control_plane.instances import service
from control_plane.instances.schemas import InstanceView
from web import live
from web.instance_list import STATES, Listing
from web.templating import fragment, page
from web.visitor import Visitor, VisitorDep

router = APIRouter(include_in_schema=False)

#: More than a person reads; who has more filters.
MOST = 500


def _instances(visitor: Visitor, listing: Listing) -> list[InstanceView]:
    live_only = not listing.includes_terminated
    found = service.list_instances(visitor.context, visitor.principal, limit=MOST, live=live_only)
    return listing.of_these(found.items)


@router.get("/")
@router.get("/instances")
def instances(request: Request, visitor: VisitorDep) -> Response:
    """The list; without any instance, how to get one."""
    listing = Listing.of(request.query_params)
    found = _instances(visitor, listing)
    return page(
        request,
        "pages/instances.html",
        visitor=visitor,
        instances=found,
        has_any=bool(found) or bool(_instances(visitor, Listing(state="all"))),
        listing=listing,
        states=STATES,
    )


@router.get("/instances/live")
def instances_live(request: Request, visitor: VisitorDep) -> Response:
    """The rows of the list, sent again whenever one changes."""
    listing = Listing.of(request.query_params)

    def rows() -> dict[str, str]:
        found = _instances(visitor, listing)
        return {"instances": fragment("instances/table.html", instances=found, now=visitor.context.clock.now())}

    return live.stream(request, visitor.context, rows)
