"""What the machine can do, measured in the same run: ``python -m engine.machine CORES`` prints JSON.

Reading: the best of five passes over 1 GiB by each of three torch reductions (sum of float32, dot product of a vector
with itself, maximum of int32), which read every byte once and write nothing; the fastest reduction counts.
Multiplication: the best of the repetitions of ``x @ w.T`` with ``x`` of 256 or 512 rows and ``w`` of the model's two
widest shapes; int8 by ``torch._int_mm``. Both are what torch reaches, not the hardware's limit: a better kernel may
pass 100 %.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from llama_246m import CONFIG

_GIGABYTE = 2**30
_PASSES = 5
_ROWS = (256, 512)
_GEMM_SECONDS = 0.4


@dataclass(frozen=True)
class Machine:
    """``read`` is bytes per second by the number of cores; ``gemm`` operations per second by dtype, on all cores.

    ``import_torch`` is how many seconds a Python process takes that imports torch and nothing else.
    """

    cpu: str
    cores: int
    memory_bytes: int
    load_average_at_start: float
    python: str
    read: dict[str, float]
    gemm: dict[str, float]
    import_torch: float

    @property
    def bandwidth(self) -> float:
        """Bytes per second that all cores read."""
        return max(self.read.values())

    def peak(self, *dtypes: str) -> float:
        """Operations per second of the fastest of these dtypes."""
        return max(self.gemm[dtype] for dtype in dtypes)

    @classmethod
    def measure(cls, cores: int) -> Machine:
        """Measure in child processes, so that no thread pool stays behind."""
        load = os.getloadavg()[0]
        argv = [sys.executable, "-m", "engine.machine", str(cores)]
        folder = Path(__file__).resolve().parents[1]
        found = json.loads(subprocess.run(argv, cwd=folder, capture_output=True, check=True, timeout=300).stdout)
        return cls(
            cpu=_cpu_model(),
            cores=cores,
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            load_average_at_start=load,
            python=platform.python_version(),
            import_torch=_import_torch_seconds(),
            **found,
        )

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.machine())


def _import_torch_seconds() -> float:
    def once() -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        return time.perf_counter() - started

    return statistics.median(once() for _ in range(3))


def _best(work: Callable[[], object], seconds: float) -> float:
    """The shortest run of ``work``, in seconds, of those that fit into ``seconds``, but at least five."""
    times: list[float] = []
    while len(times) < _PASSES or sum(times) < seconds:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def _measure_here(cores: int) -> dict[str, dict[str, float]]:
    import torch  # noqa: PLC0415 - only the child process needs it

    floats = torch.ones(_GIGABYTE // 4)
    integers = floats.view(torch.int32)
    readers: list[Callable[[], object]] = [floats.sum, lambda: torch.dot(floats, floats), integers.max]
    read = {}
    for count in dict.fromkeys((1, cores)):
        torch.set_num_threads(count)
        read[str(count)] = _GIGABYTE / min(_best(reader, 0.0) for reader in readers)

    gemm = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        gemm[str(dtype).removeprefix("torch.")] = max(_gemm_rate(dtype, rows, *shape) for rows, shape in _shapes())
    gemm["int8"] = max(_int8_rate(rows, *shape) for rows, shape in _shapes())
    return {"read": read, "gemm": gemm}


def _shapes() -> list[tuple[int, tuple[int, int]]]:
    """(rows, (outputs, inputs)) of gate and up together, and of down."""
    hidden, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    return [(rows, shape) for rows in _ROWS for shape in ((2 * inner, hidden), (hidden, inner))]


def _gemm_rate(dtype: object, rows: int, outputs: int, inputs: int) -> float:
    import torch  # noqa: PLC0415

    x = torch.randn(rows, inputs).to(dtype)  # type: ignore[call-overload]
    w = torch.randn(outputs, inputs).to(dtype)  # type: ignore[call-overload]
    return 2 * rows * outputs * inputs / _best(lambda: torch.nn.functional.linear(x, w), _GEMM_SECONDS)


def _int8_rate(rows: int, outputs: int, inputs: int) -> float:
    import torch  # noqa: PLC0415

    x = torch.randint(-127, 128, (rows, inputs), dtype=torch.int8)
    w = torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8)
    return 2 * rows * outputs * inputs / _best(lambda: torch._int_mm(x, w.t()), _GEMM_SECONDS)


if __name__ == "__main__":
    json.dump(_measure_here(int(sys.argv[1])), sys.stdout)
