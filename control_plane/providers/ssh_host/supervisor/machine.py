"""What this machine has: processors, memory, NVIDIA devices, systemd."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from control_plane.providers.ssh_host.supervisor.files import Json


def gpus() -> list[Json]:
    """The NVIDIA devices, memory in bytes; none where there is no driver. ``busy``: some process computes on it."""
    fields = "index,uuid,name,memory.total,memory.free"
    busy = {line.split(",")[0].strip() for line in nvidia_smi("--query-compute-apps=gpu_uuid,pid")}
    found = []
    for line in nvidia_smi(f"--query-gpu={fields}"):
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 5 and parts[3].isdigit() and parts[4].isdigit():
            _, uuid, name, total, free = parts
            memory = {"total": int(total) << 20, "free": int(free) << 20}
            found.append(dict(memory, uuid=uuid, model=slug(name), name=name, busy=uuid in busy))
    return found


def slug(name: str) -> str:
    """``NVIDIA H200`` → ``nvidia-h200``."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def nvidia_smi(query: str) -> list[str]:
    """The lines of an answer of nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return []
    argv = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return answer.stdout.splitlines()


def systemd() -> list[str]:
    """How systemd is asked to run something that outlives this session; empty where it does not run or would not."""
    if os.geteuid() == 0:
        argv = ["systemd-run"]
    elif (Path("/var/lib/systemd/linger") / str(os.environ.get("USER", ""))).exists():
        argv = ["systemd-run", "--user"]
    else:
        return []  # the user's manager ends with the last session, and takes its units with it
    if shutil.which("systemd-run") is None or shutil.which("systemctl") is None:
        return []
    asked = subprocess.run(["systemctl", *argv[1:], "is-system-running"], capture_output=True, text=True, check=False)
    return argv if asked.stdout.strip() in {"running", "degraded", "starting"} else []


def cpu_name() -> str:
    """The processor's marketing name, or the architecture's where the kernel gives none."""
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return found.group(1).strip() if found else os.uname().machine


def cpu_has_bfloat16() -> bool:
    """Whether the processor has AVX-512's bfloat16 instructions."""
    return "avx512_bf16" in Path("/proc/cpuinfo").read_text()


def memory_available() -> int:
    """Bytes that can be had without swapping, as the kernel estimates."""
    found = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    return int(found.group(1)) << 10 if found else 0
