"""The command line of the supervisor; see the package's documentation."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from control_plane.providers.ssh_host.supervisor.calls import call
from control_plane.providers.ssh_host.supervisor.replicas import Host


def main() -> None:
    """See the module's documentation."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("operation", choices=("call", "run"))
    parser.add_argument("name", nargs="?", default="")
    options = parser.parse_args()
    options.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    host = Host(options.root)
    if options.operation == "run":
        from control_plane.providers.ssh_host.supervisor.watch import watch  # noqa: PLC0415 (calls are many, and short)

        watch(host, options.name)
    else:
        for line in sys.stdin:
            print(json.dumps(call(host, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
