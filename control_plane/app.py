"""The control plane's HTTP application: REST under ``/api/v1``, the gateway under ``/i`` and ``/v1``, health.

The pages are added by ``web.app``, which stands on this one.
"""

from __future__ import annotations

from fastapi import FastAPI

from control_plane.accounts import endpoints as accounts
from control_plane.admin import endpoints as admin
from control_plane.audit import endpoints as audit
from control_plane.catalog import endpoints as catalog
from control_plane.context import Context, get_context
from control_plane.downloads import agent_endpoints as agents
from control_plane.gateway import endpoints as gateway
from control_plane.health import endpoints as health
from control_plane.instances import endpoints as instances
from control_plane.problems import install_error_handlers
from control_plane.processes.heartbeat import beating
from control_plane.processes.tables import ProcessKind
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
        lifespan=beating(ProcessKind.WEB),
    )
    app.state.context = context or get_context()
    install_error_handlers(app)
    for part in (accounts, admin, agents, audit, catalog, instances, providers):
        app.include_router(part.router, prefix=API_PREFIX)
    app.include_router(health.router)
    app.include_router(gateway.router)
    return app


def create_gateway(context: Context | None = None) -> FastAPI:
    """The API URLs alone: many copies may run, and each serves on while everything else is down.

    :param context: the outside world; the default is this process's own.
    """
    app = FastAPI(
        title="Slipway gateway",
        version="1",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        lifespan=beating(ProcessKind.GATEWAY),
    )
    app.state.context = context or get_context()
    install_error_handlers(app)
    # Ready whenever it answers: it must not be taken out of service because the database is away.
    app.add_api_route("/readyz", health.healthz)
    app.include_router(health.router)
    app.include_router(gateway.router)
    return app
