"""Routes about the server itself: health, readiness, version, metrics, models."""

from __future__ import annotations

from importlib.metadata import version

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serving_image.server.metrics import CONTENT_TYPE
from serving_image.server.responses import Model, ModelList
from serving_image.server.state import ServerState


async def health(http: Request) -> Response:
    """200 while the engine loads or gets on; 503 with the reason when it is silent, stuck or gone."""
    state: ServerState = http.app.state.server
    because = state.unhealthy_because
    body: dict[str, object] = {"status": "ok" if because is None else "unhealthy"}
    if because is not None:
        body["reason"] = because
    body["engine_heartbeat_age_s"] = round(state.engine.heartbeat_age, 3)
    body["engine_seconds_without_progress"] = round(state.engine.seconds_without_progress, 3)
    return JSONResponse(body, 200 if because is None else 503)


async def ready(http: Request) -> Response:
    """200 when a request can be answered now; 503 with the reason while it cannot."""
    state: ServerState = http.app.state.server
    because = state.unavailable_because
    headers = {"x-boot-id": state.options.boot_id} if state.options.boot_id else None
    if because is None:
        return JSONResponse({"ready": True}, headers=headers)
    return JSONResponse({"ready": False, "reason": because}, 503, headers=headers)


async def show_version(_: Request) -> Response:
    return JSONResponse({"version": version("slipway")})


async def metrics(http: Request) -> Response:
    state: ServerState = http.app.state.server
    return Response(state.metrics.render(), headers={"Content-Type": CONTENT_TYPE})


async def list_models(http: Request) -> Response:
    return _json(ModelList([_model(http.app.state.server)]))


async def show_model(http: Request) -> Response:
    state: ServerState = http.app.state.server
    state.check_model(http.path_params["model"])
    return _json(_model(state))


def _model(state: ServerState) -> Model:
    return Model(
        id=state.options.served_model_name,
        created=state.started_at,
        root=state.options.model,
        max_model_len=state.limits.max_model_len,
    )


def _json(body: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")
