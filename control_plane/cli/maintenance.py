"""Commands that look after an installation: ``migrate``, ``setup-link``, ``doctor``, ``openapi``."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from control_plane.cli.configuration import DataOption, JsonOption, load_settings
from control_plane.cli.exit_codes import ExitCode
from control_plane.errors import NotFound, Unavailable


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    for command in (migrate, doctor, openapi):
        app.command()(command)
    app.command("setup-link")(setup_link)


def setup_link(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Print the one-time link that makes the first administrator; earlier links no longer work."""
    from control_plane.supervisor.installation import prepare_database

    url = prepare_database(load_settings(data_dir=data))
    if url is None:
        raise NotFound("there is an administrator already", "Sign in, or ask them for an account.")
    print(json.dumps({"setup_url": url}) if as_json else url)


def migrate(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Bring the database's schema up to date; 'slipway up' does it by itself."""
    from sqlalchemy.exc import SQLAlchemyError

    from control_plane.migrate import upgrade

    settings = load_settings(data_dir=data)
    try:
        upgrade(settings.database_url)
    except SQLAlchemyError as error:
        raise Unavailable(str(error).splitlines()[0], "Check SLIPWAY_DATABASE_URL.") from error
    print(json.dumps({"migrated": True}) if as_json else "the database is up to date")


def doctor(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Check this machine and a running Slipway, and say what to do. Exit code 1 when something must be fixed."""
    from control_plane.cli.doctor import examine

    findings = list(examine(load_settings(data_dir=data)))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            print(finding.text())
    if any(finding.verdict == "fail" for finding in findings):
        raise typer.Exit(ExitCode.FAILED)


def openapi() -> None:
    """Print the REST API's description (OpenAPI, JSON)."""
    from control_plane.app import create_app

    load_settings()
    print(json.dumps(create_app().openapi(), indent=2))
