"""Jinja: everything is escaped, a missing value is an error, and every page gets the same few helpers."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from control_plane.context import Context
from web import formatting
from web.bundle import asset_url
from web.phases import look
from web.theme import theme_of

TEMPLATES = Path(__file__).parent / "templates"


@lru_cache
def environment() -> Environment:
    """The templates, with the filters they use."""
    jinja = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("size", "memory", "rate", "parameters", "number", "duration", "money", "absolute"):
        jinja.filters[name] = getattr(formatting, name)
    jinja.filters["look"] = look
    jinja.filters["iso"] = datetime.isoformat
    jinja.filters["ago"] = formatting.ago
    jinja.globals["asset_url"] = asset_url
    return jinja


def fragment(template: str, **values: Any) -> str:
    """A template as text, for a live update."""
    return environment().get_template(template).render(**values)


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A whole page, or the part of one that an htmx request asked for. Never cached: it is one person's."""
    context: Context = request.app.state.context
    values.setdefault("visitor", None)
    html = fragment(
        template,
        request_path=request.url.path,
        theme=theme_of(request),
        now=context.clock.now(),
        **values,
    )
    return HTMLResponse(html, status, {"Cache-Control": "no-store"})
