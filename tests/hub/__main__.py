"""Publishes folders as a model hub: ``python -m tests.hub --port 8100 path/to/org/name …`` (see docs/local-hub.md)."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from tests.hub.server import HubServer


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hub", description="Serve folders as a Hugging Face hub.")
    parser.add_argument(
        "folders", nargs="+", metavar="FOLDER|ID=FOLDER", help="a model folder; its id is ID or PARENT/NAME"
    )
    parser.add_argument("--port", type=int, default=8100)
    parser.add_argument("--rate", type=float, metavar="BYTES_PER_S", help="limit the total download rate")
    parser.add_argument("--gated", action="append", default=[], metavar="ID", help="require a token for this id")
    parser.add_argument("--token", action="append", default=[], help="a token with access to all gated ids")
    options = parser.parse_args()

    folders = {}
    for argument in options.folders:
        repo_id, _, folder = argument.rpartition("=")
        path = Path(folder).resolve()
        if not path.is_dir():
            parser.error(f"{folder} is not a folder")
        folders[repo_id or f"{path.parent.name}/{path.name}"] = path
    if unknown := set(options.gated) - folders.keys():
        parser.error(f"--gated names no published id: {', '.join(sorted(unknown))} (published: {', '.join(folders)})")

    stop = threading.Event()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, lambda *_: stop.set())
    with HubServer(options.port) as hub:
        for repo_id, path in folders.items():
            sha = hub.add_repo(repo_id, path, gated="manual" if repo_id in options.gated else False)
            print(f"{repo_id}  {sha[:12]}  {path}")
        for token in options.token:
            hub.add_token(token, *options.gated)
        if options.rate:
            hub.faults.rate(options.rate)
        print(f"\nexport HF_ENDPOINT={hub.url}", flush=True)
        stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
