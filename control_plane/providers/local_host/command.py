"""The command line and environment that a replica's engine is started with."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from control_plane.providers.base import ReplicaSpec
from control_plane.providers.engine_flags import engine_flags
from control_plane.providers.local_host.placement import CPU_HARDWARE, Placement

#: In every replica's environment, with its folder as value: how a later host recognises what an earlier one left.
MARKER = "SLIPWAY_REPLICA_FOLDER"

#: What an engine may inherit. No other SLIPWAY_* variable and no token of a user reaches it.
_INHERITED = re.compile(
    r"PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|LD_LIBRARY_PATH|LD_PRELOAD|XDG_CACHE_HOME|"
    r"(CUDA|NVIDIA|NCCL|TORCH|TORCHINDUCTOR|TRITON|OMP|MKL|KMP|GOMP|MALLOC)_\w+"
)


def engine_argv(engine: Path, spec: ReplicaSpec, placement: Placement, *, port: int, api_key_file: Path) -> list[str]:
    """``slipway-serve`` under a parent-death signal, so that the host's death, however sudden, is the engine's too.

    A limit of memory is one of each process's own data (RLIMIT_DATA in getrlimit(2)): weights read through a mapped
    file do not count, and the engine process holds nearly all the rest. A limit of processors is an affinity mask.

    :raises ProviderError: an option that an engine must not be given.
    """
    device = "cpu" if spec.hardware_id == CPU_HARDWARE else "cuda"
    flags = engine_flags(spec, host="127.0.0.1", port=str(port), api_key_file=str(api_key_file), device=device)
    argv = ["setpriv", "--pdeathsig", "KILL", "--"]
    if spec.limits.memory_bytes is not None:
        argv += ["prlimit", f"--data={spec.limits.memory_bytes}"]
    if placement.cpus:
        argv += ["taskset", "--cpu-list", ",".join(map(str, placement.cpus))]
    return [*argv, str(engine), str(spec.weights.path), *flags]


def engine_environment(placement: Placement, folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """What of ``environment`` an engine gets, its devices, and the marker."""
    kept = {name: value for name, value in environment.items() if _INHERITED.fullmatch(name)}
    return kept | {
        "CUDA_VISIBLE_DEVICES": placement.visible_devices,
        "HF_HUB_OFFLINE": "1",  # weights are here already; an engine has no reason to talk to the hub
        "PYTHONUNBUFFERED": "1",
        MARKER: str(folder),
    }


def default_engine() -> Path:
    """``slipway-serve`` of the environment that this process runs in."""
    return Path(sys.executable).with_name("slipway-serve")
