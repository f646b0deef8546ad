"""The whole web application: the control plane's REST and gateway, and the pages in front of them.

``uvicorn --factory web.app:create_app`` runs it.
"""

from __future__ import annotations

from fastapi import FastAPI

from control_plane.app import create_app as create_control_plane
from control_plane.context import Context
from web.bundle import PREFIX, HashedFiles
from web.errors import install_error_pages
from web.headers import SecurityHeaders
from web.pages import (
    admin_orphans,
    admin_workers,
    audit,
    instance,
    instance_actions,
    instances,
    keys,
    launch,
    preferences,
    sign_in,
)

#: Modules with pages.
PAGES = (
    sign_in,
    launch,
    instances,
    instance,
    instance_actions,
    keys,
    audit,
    admin_orphans,
    admin_workers,
    preferences,
)


def create_app(context: Context | None = None) -> FastAPI:
    """The control plane's application with pages.

    :param context: the outside world; the default is this process's own.
    :raises AssetsNotBuilt: ``npm run build`` has not been run.
    """
    app = create_control_plane(context)
    app.add_middleware(SecurityHeaders)
    app.mount(PREFIX, HashedFiles(), name="static")
    for part in PAGES:
        app.include_router(part.router)
    install_error_pages(app)
    return app
