"""``slipway-agent``: run one download job and end.

Exit codes: 0 told how it ended (well or badly) or was not wanted any more; 1 the control plane could not be told;
2 cannot work as it was started.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from control_plane.agent.client import BadSetup, ControlPlane, NoAnswer
from control_plane.agent.work import fetch

EXIT_NOT_TOLD, EXIT_BAD_SETUP = 1, 2


def hub_cache() -> Path:
    """The Hugging Face cache of this place, as huggingface_hub finds it."""
    if explicit := os.environ.get("HF_HUB_CACHE"):
        return Path(explicit).expanduser()
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(home).expanduser() / "hub"


def read_token(path: Path) -> str:
    """The token in a file: an argument list is everybody's to read.

    :raises BadSetup: there is none.
    """
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetup(f"the token cannot be read from {path}: {error}") from None
    if not token or not token.isascii() or not token.isprintable():
        raise BadSetup(f"{path} holds no token")
    return token


async def _run(job_url: str, token_file: Path, cache: Path) -> None:
    work = asyncio.current_task()
    if work is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
    async with ControlPlane(job_url, read_token(token_file)) as control_plane:
        await fetch(control_plane, cache)


def main(argv: list[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    parser = argparse.ArgumentParser(prog="slipway-agent", description="Fetch a model's weights for a control plane.")
    parser.add_argument("--job-url", required=True, help="where the job is described and progress is reported (https)")
    parser.add_argument("--token-file", required=True, type=Path, help="a file that holds this boot's token")
    parser.add_argument("--cache", type=Path, help="the cache to fill (default: HF_HUB_CACHE, HF_HOME/hub)")
    options = parser.parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="slipway-agent: %(message)s")
    try:
        asyncio.run(_run(options.job_url, options.token_file, options.cache or hub_cache()))
    except BadSetup as error:
        print(f"slipway-agent: error: {error}", file=sys.stderr, flush=True)
        return EXIT_BAD_SETUP
    except NoAnswer as error:
        print(f"slipway-agent: error: {error}; given up", file=sys.stderr, flush=True)
        return EXIT_NOT_TOLD
    except asyncio.CancelledError:  # SIGTERM: what is on disk stays
        print("slipway-agent: stopped", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
