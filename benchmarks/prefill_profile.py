#!/usr/bin/env python3
"""Where the time to a prompt's first token goes, kernel by kernel.

    .venv/bin/python benchmarks/prefill_profile.py [--tokens N] [--repeats N]

The engine's core in this process, the 246M Llama of the other benchmarks, exact and int8-dynamic. A kernel's time is
from its call to the next kernel's, so what Python does between two kernels counts for the first. Writes
benchmarks/results/prefill_profile.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from random import Random

BENCHMARKS = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS.parent)]

import torch  # noqa: E402
from llama_246m import make_llama  # noqa: E402

from kernels.native import library  # noqa: E402
from serving_image.engine.boot import boot  # noqa: E402
from serving_image.engine.core import EngineCore  # noqa: E402
from serving_image.engine.protocol import AddRequest, SamplingParams  # noqa: E402
from serving_image.engine.timeline import BootTimeline  # noqa: E402
from serving_image.options import EngineOptions  # noqa: E402

RESULTS = BENCHMARKS / "results"
VARIANTS = ("none", "int8-dynamic")


class Stopwatch:
    """Recorder of kernels that takes the time at each call."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._name: str | None = None
        self._since = 0.0

    def add(self, kernel: library.Kernel, arguments: tuple[float | None, ...]) -> None:
        """A kernel is called: the one before it has ended."""
        self.stop()
        self._name = kernel.name.removeprefix("slipway_")
        if "linear" in self._name or "gated" in self._name:
            self._name += f" {arguments[2]} → {arguments[3]}"
        self._since = time.perf_counter()

    def stop(self) -> None:
        """The last kernel has ended."""
        if self._name is not None:
            self.seconds[self._name] += time.perf_counter() - self._since

    def empty(self, shape: tuple[int, ...], kind: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=kind)


def first_token(core: EngineCore, prompt: list[int]) -> float:
    """Seconds until the prompt's first token."""
    request = AddRequest(request_id="r", prompt_token_ids=prompt, sampling=SamplingParams(temperature=0, max_tokens=1))
    started = time.perf_counter()
    assert core.add(request) is None
    while core.has_work:
        core.step()
    return time.perf_counter() - started


def profile(model: Path, quantization: str, tokens: int, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each kernel, summed over the layers, and of the whole, one figure per repeat."""
    options = EngineOptions(
        model=str(model), device="cpu", quantization=quantization, max_model_len=4096, enable_prefix_caching=False
    )
    core = boot(options, BootTimeline(time.perf_counter)).core
    random = Random(0)
    figures: defaultdict[str, list[float]] = defaultdict(list)
    for repeat in range(repeats + 1):
        stopwatch = Stopwatch()
        prompt = [random.randrange(300, 31000) for _ in range(tokens)]
        with library.recorded_by(stopwatch):
            total = first_token(core, prompt)
        if repeat:  # the first is warm-up
            figures["whole"].append(total * 1e3)
            for name, seconds in stopwatch.seconds.items():
                figures[name].append(seconds * 1e3)
            figures["output layer, sampling, the rest"].append((total - sum(stopwatch.seconds.values())) * 1e3)
    return dict(figures)


def table(variants: dict[str, dict[str, list[float]]]) -> str:
    """Medians as Markdown, the slowest first."""
    lines = []
    for variant, figures in variants.items():
        whole = statistics.median(figures["whole"])
        lines += [f"## `--quantization {variant}`", "", "| kernel | ms, median | share |", "|---|---:|---:|"]
        medians = {name: statistics.median(values) for name, values in figures.items()}
        for name, median in sorted(medians.items(), key=lambda item: -item[1]):
            lines.append(f"| {name} | {median:.1f} | {median / whole:.0%} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    if library.load() is None:
        parser.error(
            "the compiled kernels are not there: `python -m kernels.native` builds them, or says why it cannot"
        )
    load = os.getloadavg()[0]
    model = make_llama(Path(tempfile.gettempdir()) / "slipway-benchmarks" / "llama-246m")
    variants = {name: profile(model, name, arguments.tokens, arguments.repeats) for name in VARIANTS}
    page = (
        f"# Where the first token of a {arguments.tokens}-token prompt spends its time\n\n"
        f"Medians of {arguments.repeats} by `benchmarks/prefill_profile.py`; load average before: {load:.1f}.\n\n"
        + table(variants)
    )
    print(page)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "prefill_profile.md").write_text(page)
    (RESULTS / "prefill_profile.json").write_text(json.dumps({"load": load, "milliseconds": variants}, indent=2) + "\n")


if __name__ == "__main__":
    main()
