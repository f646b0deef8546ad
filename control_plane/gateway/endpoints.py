"""The API URL: ``/i/{slug}/…`` reaches one instance, ``/v1/…`` the one that the request's ``model`` names."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import APIRouter, FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import Response

from control_plane.accounts.dependencies import authenticate, authenticate_async
from control_plane.accounts.principal import Principal
from control_plane.context import Context, ContextDep
from control_plane.gateway import routing
from control_plane.gateway.errors import BadRequest, ModelNotFound, OpenAIRoute
from control_plane.gateway.memory import Answer, Memory
from control_plane.gateway.relay import make_client, read_body, relay
from control_plane.instances import repository

_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.:-]*(/[A-Za-z0-9_-][A-Za-z0-9_.:-]*)*")
_METHODS = ["GET", "POST"]


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[dict[str, httpx.AsyncClient | Memory]]:
    async with make_client() as client:
        yield {"engines": client, "memory": Memory(app.state.context.settings.gateway_stale_s)}


router = APIRouter(tags=["gateway"], route_class=OpenAIRoute, lifespan=_lifespan, include_in_schema=False)


@router.get("/v1/models")
async def list_models(request: Request, context: ContextDep) -> dict[str, Any]:
    """The team's running instances, by name; each may also be called by its slug or its model id."""
    principal = await _authenticated(request, context)
    return {"object": "list", "data": await _running(request, context, principal)}


@router.get("/v1/models/{model:path}")
async def get_model(model: str, request: Request, context: ContextDep) -> dict[str, Any]:
    """One of them."""
    principal = await _authenticated(request, context)
    for found in await _running(request, context, principal):
        if model in {found["id"], found["slug"], found["root"]}:
            return found
    raise ModelNotFound(f"no running instance serves {model!r}", param="model")


@router.api_route("/v1/{path:path}", methods=_METHODS)
async def by_model(path: str, request: Request, context: ContextDep) -> Response:
    """Anything that carries a ``model``."""
    principal = await _authenticated(request, context)
    body = await read_body(request)
    fields = _json_object(body)
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("the request names no model", "Set 'model'; GET /v1/models lists them.", param="model")
    route = await _asked(
        request, ("model", str(principal.team_id), model), lambda: routing.by_model(context, principal, model)
    )
    if model != route.served_model:
        body = json.dumps(fields | {"model": route.served_model}).encode()
    return await relay(request, request.state.engines, route, _checked(f"/v1/{path}"), body)


@router.api_route("/i/{slug}/v1/{path:path}", methods=_METHODS)
async def by_slug(slug: str, path: str, request: Request, context: ContextDep) -> Response:
    """An instance's own API."""
    return await _to_instance(request, context, slug, f"/v1/{path}")


@router.api_route("/i/{slug}/{operation}", methods=_METHODS)
async def operation_by_slug(slug: str, operation: str, request: Request, context: ContextDep) -> Response:
    """What an engine offers beside OpenAI's routes: tokenize, detokenize, health, ready, version, metrics."""
    return await _to_instance(request, context, slug, f"/{operation}")


async def _to_instance(request: Request, context: Context, slug: str, path: str) -> Response:
    principal = await _authenticated(request, context)
    body = await read_body(request)
    route = await _asked(
        request, ("slug", str(principal.team_id), slug), lambda: routing.by_slug(context, principal, slug)
    )
    return await relay(request, request.state.engines, route, _checked(path), body)


async def _authenticated(request: Request, context: Context) -> Principal:
    """Who asks. Keys are remembered while the database is away; sessions of browsers are not."""
    authorization = request.headers.get("Authorization")
    if authorization is None:
        return await authenticate_async(request, context)
    return await _asked(request, ("key", authorization), lambda: authenticate(request, context))


async def _asked(request: Request, asked: tuple[str, ...], question: Callable[[], Answer]) -> Answer:
    memory: Memory = request.state.memory
    return await run_in_threadpool(memory.ask, asked, question)


async def _running(request: Request, context: Context, principal: Principal) -> list[dict[str, Any]]:
    return await _asked(request, ("models", str(principal.team_id)), lambda: _models(context, principal))


def _models(context: Context, principal: Principal) -> list[dict[str, Any]]:
    with context.database.reading() as session:
        running = repository.running(session, principal.team_id)
    return [
        {
            "id": instance.name,
            "object": "model",
            "created": int(instance.created_at.timestamp()),
            "owned_by": "slipway",
            "root": instance.model,
            "slug": instance.slug,
        }
        for instance in running
    ]


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError as error:
        raise BadRequest("the body is not JSON") from error
    if not isinstance(value, dict):
        raise BadRequest("the body is not a JSON object")
    return value


def _checked(path: str) -> str:
    """A path that means the same to every program it passes: no empty or dotted parts, nothing escaped."""
    if not _PATH.fullmatch(path.removeprefix("/")):
        raise ModelNotFound(f"there is no {path[:100]!r} here", "See the API's reference for what there is.")
    return path
