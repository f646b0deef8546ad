"""The ``slipway`` command.

Commands that run the control plane are here; those that talk to a running one over HTTP are in ``cli/client``.
Heavy imports are inside the commands: ``slipway ps`` must not wait for Celery and SQLAlchemy.
"""

from __future__ import annotations

import sys

import typer

from control_plane.cli import client, maintenance, roles, server
from control_plane.cli.exit_codes import ExitCode, exit_code_of
from control_plane.errors import SlipwayError

app = typer.Typer(
    name="slipway",
    help="Launch language models and reach them through an OpenAI-compatible API URL.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
server.register(app)
roles.register(app)
maintenance.register(app)
client.register(app)


def main() -> None:
    """Run the command line: an error is one line and a next step, never a traceback."""
    try:
        app()
    except SlipwayError as error:
        print(f"error: {error.detail}\n  {error.next_step}", file=sys.stderr)
        sys.exit(exit_code_of(error))
    except KeyboardInterrupt:
        sys.exit(ExitCode.FAILED)
    except BrokenPipeError:
        # The reader of our output went away (``slipway ps | head``); nothing is left to tell anybody.
        sys.stderr.close()
        sys.exit(ExitCode.FAILED)
