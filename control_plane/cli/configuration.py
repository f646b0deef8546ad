"""The settings of a command: flags over ``slipway.toml`` over the environment."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from control_plane.errors import Invalid
from control_plane.settings import CONFIG_FILE, OVERRIDES, Settings, get_settings

#: ``--data``, the same for every command that has it.
DataOption = Annotated[Path | None, typer.Option("--data", help="Data folder (default: SLIPWAY_DATA_DIR, or ./data).")]
#: ``--json``, the same for every command.
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


class InvalidConfiguration(Invalid):
    """A setting has a value that cannot be."""

    code = "invalid_configuration"


def load_settings(**flags: Any) -> Settings:
    """Read the settings with ``flags`` (those that are not None) on top, for this process and its children.

    :raises InvalidConfiguration: says which setting is wrong, and where it can come from.
    """
    given = {
        name: str(value) if isinstance(value, Path) else value for name, value in flags.items() if value is not None
    }
    inherited = json.loads(os.environ.get(OVERRIDES, "{}"))
    os.environ[OVERRIDES] = json.dumps(inherited | given)
    get_settings.cache_clear()
    try:
        settings = get_settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        raise InvalidConfiguration(
            f"{name}: {first['msg']}", f"Correct --{name}, {name} in {CONFIG_FILE}, or SLIPWAY_{name.upper()}."
        ) from error
    except TOMLDecodeError as error:
        raise InvalidConfiguration(f"{CONFIG_FILE} is not valid TOML: {error}", f"Correct {CONFIG_FILE}.") from error
    os.environ.update(settings.child_environment())
    return settings
