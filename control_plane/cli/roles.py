"""Commands that run one role of the control plane each, in the foreground; any number of copies may run.

``slipway up`` runs them all on one machine. Apart, they share a database, a broker and SLIPWAY_SECRET_KEY.
"""

from __future__ import annotations

from typing import Annotated

import typer

from control_plane.cli.configuration import DataOption, load_settings

_WEB, _GATEWAY = "web.app:create_app", "control_plane.app:create_gateway"
#: Seconds that answers under way get when the process is told to end.
_DRAIN_S = 30

PortOption = Annotated[int | None, typer.Option(help="Port to listen on (default: 8000).", min=1, max=65535)]
HostOption = Annotated[str | None, typer.Option(help="Address to listen on (default: 127.0.0.1).")]


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    for command in (web, gateway, worker, beat):
        app.command()(command)
    app.command("local-host")(local_host)


def web(port: PortOption = None, host: HostOption = None, data: DataOption = None) -> None:
    """Serve the pages, the REST API and the API URLs. Run 'slipway migrate' first."""
    _serve(_WEB, port, host, data)


def gateway(port: PortOption = None, host: HostOption = None, data: DataOption = None) -> None:
    """Serve the API URLs alone; goes on by what it knows while the database is away."""
    _serve(_GATEWAY, port, host, data)


def _serve(application: str, port: int | None, host: str | None, data: DataOption) -> None:
    settings = load_settings(port=port, host=host, data_dir=data)
    import uvicorn

    uvicorn.run(
        application,
        factory=True,
        host=settings.host,
        port=settings.port,
        access_log=False,
        timeout_graceful_shutdown=_DRAIN_S,
        # TLS ends at a proxy in front; which addresses may say who the client is, FORWARDED_ALLOW_IPS names.
        proxy_headers=True,
    )


def worker(data: DataOption = None) -> None:
    """Run a Celery worker. 'slipway up' runs one already; more may run, here or elsewhere."""
    settings = load_settings(data_dir=data)
    from control_plane.cli.celery_process import run_worker

    run_worker(settings)


def beat(data: DataOption = None) -> None:
    """Run the scheduler (Celery beat). 'slipway up' runs one already; two are harmless."""
    settings = load_settings(data_dir=data)
    from control_plane.cli.celery_process import run_beat

    run_beat(settings)


def local_host(data: DataOption = None) -> None:
    """Run the engines of the local provider on this machine; they end with it."""
    load_settings(data_dir=data)
    from control_plane.providers.local_host.__main__ import main

    raise typer.Exit(main([]))
