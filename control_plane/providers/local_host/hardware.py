"""What this machine has: processors, memory, NVIDIA devices."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

_MIB = 1 << 20
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA device; memory in bytes. ``uuid`` names it whatever order a library counts devices in."""

    index: int
    uuid: str
    name: str
    memory_total: int
    memory_free: int


def cpu_name() -> str:
    """The processor's marketing name, or the architecture's where the kernel gives none."""
    return _cpuinfo("model name") or platform.machine()


def cpu_has_bfloat16() -> bool:
    """Whether the processor has AVX-512's bfloat16 instructions, without which the engine computes in float32."""
    return "avx512_bf16" in _cpuinfo("flags").split()


def _cpuinfo(field: str) -> str:
    """A field of the first processor in ``/proc/cpuinfo``; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == field), "")


def cpu_count() -> int:
    """Processors that this process may use: the affinity mask, and the control group's quota where it is smaller."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return allowed
    return allowed if quota == "max" else max(1, min(allowed, round(int(quota) / int(period))))


def memory_available() -> int:
    """Bytes that can be had without swapping: the kernel's estimate, and the control group's room where it is less."""
    available = psutil.virtual_memory().available
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        cache = _inactive_file_bytes()
    except (OSError, ValueError):  # no such group, or "max"
        return available
    return max(0, min(available, limit - used + cache))


def _inactive_file_bytes() -> int:
    """Page cache that the kernel gives back under pressure; ``memory.current`` counts it as used."""
    for line in (_CGROUP / "memory.stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == "inactive_file":
            return int(value)
    return 0


def gpus() -> list[Gpu]:
    """The NVIDIA devices; none where there is no driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    argv = ["nvidia-smi", "--query-gpu=index,uuid,name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_gpus(answer.stdout)


def parse_gpus(csv: str) -> list[Gpu]:
    """The lines of ``nvidia-smi --query-gpu=index,uuid,name,memory.total,memory.free``; MiB; others are passed over."""
    found = []
    for line in csv.splitlines():
        match [part.strip() for part in line.split(",")]:
            case [index, uuid, name, total, free] if index.isdigit() and total.isdigit() and free.isdigit():
                found.append(Gpu(int(index), uuid, name, int(total) * _MIB, int(free) * _MIB))
            case _:
                continue
    return found
