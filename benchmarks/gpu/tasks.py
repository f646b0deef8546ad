"""The parts of a run, each made of tasks, and each task a process of its own: what dies takes nothing with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from benchmarks.gpu.results import Ceilings, Figure, Results, updating


class Task(NamedTuple):
    """``run`` adds to the results in a file and must end within ``limit`` seconds."""

    run: Callable[[Path], None]
    limit: float


def correctness(path: Path) -> None:
    from benchmarks.gpu.correctness import run  # noqa: PLC0415 - a task loads what it needs

    found = run(TASKS["correctness"].limit - 10)
    print(found.pop("output"), flush=True)
    with updating(path) as results:
        results.tests = found
    if found["failed"]:
        raise RuntimeError(f"{found['failed']} tests failed")


def kernels(path: Path) -> None:
    import torch  # noqa: PLC0415

    from benchmarks.gpu.bench import Bench  # noqa: PLC0415
    from benchmarks.gpu.kernels import measure  # noqa: PLC0415
    from benchmarks.gpu.timing import CudaTimer  # noqa: PLC0415

    _ceilings(path)
    measure(Bench(torch.device("cuda"), CudaTimer(), _keeper(path), _say))


def engine(path: Path) -> None:
    from benchmarks.gpu.model.engine import measure  # noqa: PLC0415

    measure(_keeper(path), _ceilings(path))


def start(path: Path) -> None:
    from benchmarks.gpu.model.start import measure  # noqa: PLC0415

    measure(_keeper(path))


def peers(path: Path) -> None:
    from benchmarks.gpu.model.peers import measure  # noqa: PLC0415

    def keep(seconds: dict[str, float]) -> None:
        with updating(path) as results:
            results.figures = [
                replace(figure, peers={**figure.peers, **seconds}) if figure.row == "many_requests" else figure
                for figure in results.figures
            ]

    measure(keep, _say)


def tune(path: Path) -> None:
    from benchmarks.gpu.tune.__main__ import tune as run  # noqa: PLC0415

    run([], minutes=(TASKS["tune"].limit - 60) / 60, output=path.with_suffix(".tiles.json"))


TASKS = {
    "correctness": Task(correctness, 460),
    "kernels": Task(kernels, 460),
    "engine": Task(engine, 150),
    "start": Task(start, 140),
    "peers": Task(peers, 175),
    "tune": Task(tune, 460),
}
PARTS = {
    "correctness": ("correctness",),
    "kernels": ("kernels",),
    "model": ("engine", "start", "peers"),
    "tune": ("tune",),
}
"""Each part ends within 8 minutes."""


def _ceilings(path: Path) -> Ceilings:
    """Those of this run, measured by the first task that asks."""
    from benchmarks.gpu.ceilings import measure  # noqa: PLC0415

    found = Results.read(path).ceilings
    if found is None:
        found = measure()
        with updating(path) as results:
            results.ceilings = found
    return found


def _keeper(path: Path) -> Callable[[Figure], None]:
    def keep(figure: Figure) -> None:
        with updating(path) as results:
            results.figures.append(figure)
        peers = ", ".join(f"{name} {seconds * 1e6:.1f}" for name, seconds in figure.peers.items())
        print(f"{figure.row}, {figure.case}: {figure.seconds * 1e6:.1f} µs {peers}", flush=True)

    return keep


def _say(line: str) -> None:
    print(line, flush=True)
