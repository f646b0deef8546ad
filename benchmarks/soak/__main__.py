"""``python -m benchmarks.soak``; see the package."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import benchmarks.soak
from benchmarks.soak.run import soak

RESULTS = Path(__file__).resolve().parents[1] / "results"


def main() -> int:
    """Soak, print and write; 1 if a criterion fails."""
    parser = argparse.ArgumentParser(
        description=benchmarks.soak.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--warm-up", type=int, default=2_000, help="requests before memory is first looked at")
    parser.add_argument("--concurrency", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    result = soak(arguments.requests, warm_up=arguments.warm_up, concurrency=arguments.concurrency, seed=arguments.seed)
    page = result.page()
    print(page)
    (RESULTS / "soak.json").write_text(json.dumps(result.as_json(), indent=2) + "\n")
    (RESULTS / "soak.md").write_text(f"# Soak\n\n{page}")
    return 1 if result.failures else 0


if __name__ == "__main__":
    sys.exit(main())
