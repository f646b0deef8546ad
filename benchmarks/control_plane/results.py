"""What every result says of the machine it was measured on, and where it is kept."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results"


def write(name: str, measured: dict[str, Any], table: str, load_before: float) -> None:
    """Write ``<name>.json`` and ``<name>.md``; both say machine, load, date and command."""
    about = {
        "command": shlex.join([".venv/bin/python", "-m", f"benchmarks.control_plane.{name}", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "load_average_before_and_after": [round(load_before, 2), round(os.getloadavg()[0], 2)],
    }
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / f"control_plane_{name}"
    stem.with_suffix(".json").write_text(json.dumps(about | measured, indent=2) + "\n")
    words = (
        f"`{about['command']}`, {about['date']}: {about['cpus']} CPUs ({about['machine']}), Python {about['python']}, "
        f"PostgreSQL (without fsync) and Redis on the same machine. Load average before and after: "
        f"{load_before:.1f}, {os.getloadavg()[0]:.1f}."
    )
    stem.with_suffix(".md").write_text(f"{table.rstrip()}\n\n{words}\n")
    print(f"{table.rstrip()}\n\n{words}")
