"""``/launch``: pick a model from the catalog or type its id, see what it fits and costs, launch it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse
from starlette.datastructures import FormData
from starlette.responses import Response

from control_plane.catalog.catalog import get_catalog
from control_plane.catalog.entry import CatalogEntry
from control_plane.errors import SlipwayError
from control_plane.instances import service
from web.forms import FormInvalid
from web.launch_form import SIZES, Choice, Search, Typed, check
from web.templating import page
from web.visitor import Visitor, VisitorDep

router = APIRouter(include_in_schema=False)

#: Cards that are shown before somebody asks for all: the best matches come first.
FIRST_CARDS = 24


async def _posted(request: Request) -> dict[str, str]:
    """The fields of the form; files are none of it."""
    form: FormData = await request.form()
    return {name: value for name, value in form.items() if isinstance(value, str)}


def _found(search: Search) -> list[CatalogEntry]:
    try:
        return search.found()
    except FormInvalid:
        return []


def _page(
    request: Request, visitor: Visitor, choice: Choice | None, *, template: str = "pages/launch.html", status: int = 200
) -> Response:
    search = Search.of(request.query_params)
    catalog = get_catalog()
    return page(
        request,
        template,
        status=status,
        visitor=visitor,
        search=search,
        entries=_found(search),
        families=catalog.families(),
        licenses=catalog.licenses(),
        sizes=SIZES,
        most_cards=len(catalog.entries) if "all" in request.query_params else FIRST_CARDS,
        choice=choice,
    )


@router.get("/launch")
def launch_page(request: Request, visitor: VisitorDep) -> Response:
    """The page; with ``model`` in the URL, that model is chosen."""
    typed = Typed.of(request.query_params)
    return _page(request, visitor, check(visitor.context, typed) if typed["model"] else None)


@router.get("/launch/cards")
def cards(request: Request, visitor: VisitorDep) -> Response:
    """The list alone, while somebody types in the search box."""
    response = _page(request, visitor, None, template="launch/cards.html")
    response.headers["HX-Replace-Url"] = Search.of(request.query_params).url(
        model=Typed.of(request.query_params)["model"]
    )
    return response


@router.get("/launch/choice")
def choice_panel(request: Request, visitor: VisitorDep) -> Response:
    """The chosen model alone: after a click on a card, or while somebody types an id."""
    typed = Typed.of(request.query_params)
    choice = check(visitor.context, typed) if typed["model"] else None
    response = _page(request, visitor, choice, template="launch/choice.html")
    response.headers["HX-Replace-Url"] = Search.of(request.query_params).url(model=typed["model"])
    return response


@router.post("/launch")
def launch(request: Request, visitor: VisitorDep, fields: Annotated[dict[str, str], Depends(_posted)]) -> Response:
    """Launch, and go to the instance; or say what is wrong, with everything typed still there."""
    typed = Typed.of(fields)
    try:
        instance = service.launch(visitor.context, visitor.principal, typed.launch_request())
    except SlipwayError as error:
        return _page(request, visitor, check(visitor.context, typed, problem=error), status=error.status)
    return RedirectResponse(f"/instances/{instance.id}", 303)
