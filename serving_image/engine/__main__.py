"""The engine process: ``python -m serving_image.engine --options JSON --input ipc://… --output ipc://…``.

Started by the server, never by hand. What must precede the import of torch happens here.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import sys
from pathlib import Path

import msgspec

from serving_image.engine import process
from serving_image.engine.channel import Channel
from serving_image.engine.protocol import EngineFailed
from serving_image.engine.timeline import BootTimeline
from serving_image.engine.watchdog import default_stall_timeout, watchdog
from serving_image.errors import StartupError
from serving_image.options import EngineOptions

logger = logging.getLogger("serving_image.engine")


def main() -> int:
    """Run the engine; 0 after a drain, 2 if it cannot start or go on, :data:`process.STALLED_STATUS` if it is stuck."""
    parser = argparse.ArgumentParser(prog="python -m serving_image.engine")
    parser.add_argument("--options", required=True, help="EngineOptions as JSON")
    parser.add_argument("--input", required=True, help="address on which the server sends requests")
    parser.add_argument("--output", required=True, help="address on which the server takes tokens")
    parser.add_argument("--parent", required=True, type=int, help="process id of the server")
    arguments = parser.parse_args()
    # Native code may crash, and the server aborts an engine that is stuck in it: the stacks belong in the log.
    faulthandler.enable()
    process.die_with_parent(arguments.parent)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    process.leave_signals_to_parent()
    with Channel.connect(arguments.input, arguments.output) as channel:
        try:
            _serve(msgspec.json.decode(arguments.options, type=EngineOptions), channel)
        except StartupError as error:
            channel.send(EngineFailed(error.message, error.next_step))
            return 2
        except Exception as error:
            logger.exception("the engine cannot go on")
            channel.send(EngineFailed(f"{type(error).__name__}: {error}", "See the engine's log."))
            return 2
    return 0


def _serve(options: EngineOptions, channel: Channel) -> None:
    timeline = BootTimeline(process.seconds_since_process_start)
    with timeline.phase("import torch"):
        process.configure_openmp(options.threads)
        process.prefetch(Path(options.model))
        # Here, not above: torch reads OpenMP's settings when it is imported.
        from serving_image.engine.boot import boot  # noqa: PLC0415
        from serving_image.engine.loop import run  # noqa: PLC0415
    core, ready = boot(options, timeline)
    timeout = options.stall_timeout or default_stall_timeout(ready, options.max_num_batched_tokens)
    channel.send(msgspec.structs.replace(ready, stall_timeout=timeout))
    with watchdog(core, timeout, core.stats):
        run(core, channel)


if __name__ == "__main__":
    sys.exit(main())
