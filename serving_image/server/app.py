"""The Starlette application: routes, middleware, and errors in OpenAI's shape."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from serving_image.server import status, tokenization
from serving_image.server.access_log import AccessLog
from serving_image.server.auth import ApiKeys
from serving_image.server.chat import create_chat_completion
from serving_image.server.completions import create_completion
from serving_image.server.errors import ApiError
from serving_image.server.state import ServerState


def create_app(state: ServerState) -> Starlette:
    """The application that serves ``state``."""
    app = Starlette(
        routes=[
            Route("/v1/models", status.list_models),
            Route("/v1/models/{model:path}", status.show_model),
            Route("/v1/completions", create_completion, methods=["POST"]),
            Route("/v1/chat/completions", create_chat_completion, methods=["POST"]),
            Route("/tokenize", tokenization.tokenize, methods=["POST"]),
            Route("/detokenize", tokenization.detokenize, methods=["POST"]),
            Route("/health", status.health),
            Route("/ready", status.ready),
            Route("/version", status.show_version),
            Route("/metrics", status.metrics),
        ],
        middleware=[
            Middleware(AccessLog, clock=state.clock),
            Middleware(ApiKeys, digests=state.options.api_key_digests),
        ],
        exception_handlers=dict.fromkeys((ApiError, HTTPException, ClientDisconnect, Exception), _answer_error),
    )
    app.state.server = state
    return app


async def _answer_error(http: Request, error: Exception) -> Response:
    match error:
        case ApiError():
            return error.response()
        case HTTPException():  # Starlette's own: no such route, or not with this method
            message = f"{http.method} {http.url.path}: {error.detail}."
            return ApiError(error.status_code, message, headers=error.headers).response()
        case ClientDisconnect():  # nobody reads it; the status is the log's
            return Response(status_code=499)
        case _:  # logged, with its traceback, by uvicorn
            return ApiError(500, "The server made a mistake; its log says more.").response()
