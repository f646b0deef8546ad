"""Whether the engine serves a model, by its configuration alone: ``python -m serving_image.models.check FOLDER``.

A process of its own, so that the server, which asks before it fetches weights, need not import torch. It exits with 0,
or with :data:`REFUSED` and the message and the next step as a JSON list on standard output.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from serving_image.errors import StartupError

REFUSED = 3


def main(folder: Path) -> int:
    """The exit status."""
    from serving_image.models.registry import ModelFolder  # noqa: PLC0415 - the server imports this module's constant

    try:
        if ModelFolder.open(folder).description is None:
            from serving_image.models.transformers_backend import describe  # noqa: PLC0415 - as in the registry

            describe(folder)
    except StartupError as error:
        sys.stdout.write(json.dumps([error.message, error.next_step]))
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
