"""The control plane's HTTP application: REST under ``/api/v1``, the gateway under ``/i`` and ``/v1``, health.

The pages are added by ``web.app``, which stands on this one.
"""

from __future__ import annotations

from fastapi import FastAPI

from control_plane.accounts import endpoints as accounts
from control_plane.audit import endpoints as audit
from control_plane.catalog import endpoints as catalog
from control_plane.context import Context, get_context
from control_plane.gateway import endpoints as gateway
from control_plane.health import endpoints as health
from control_plane.instances import endpoints as instances
from control_plane.problems import install_error_handlers
from control_plane.providers import endpoints as providers

API_PREFIX = "/api/v1"


def create_app(context: Context | None = None) -> FastAPI:
    """Build the application.

    :param context: the outside world; the default is this process's own.
    """
    app = FastAPI(
        title="Slipway",
        version="1",
        summary="Launch language models and reach them through an OpenAI-compatible API URL.",
        openapi_url=f"{API_PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.context = context or get_context()
    install_error_handlers(app)
    for part in (accounts, audit, catalog, instances, providers):
        app.include_router(part.router, prefix=API_PREFIX)
    app.include_router(health.router)
    app.include_router(gateway.router)
    return app
