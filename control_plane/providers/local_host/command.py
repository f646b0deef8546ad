"""The command line and environment that a replica's engine is started with."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from control_plane.providers.base import ProviderError, ReplicaSpec
from control_plane.providers.local_host.placement import CPU_HARDWARE, Placement

#: In every replica's environment, with its folder as value: how a later host recognises what an earlier one left.
MARKER = "SLIPWAY_REPLICA_FOLDER"

#: What an engine may inherit. No other SLIPWAY_* variable and no token of a user reaches it.
_INHERITED = re.compile(
    r"PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|LD_LIBRARY_PATH|LD_PRELOAD|XDG_CACHE_HOME|"
    r"(CUDA|NVIDIA|NCCL|TORCH|TORCHINDUCTOR|TRITON|OMP|MKL|KMP|GOMP|MALLOC)_\w+"
)
#: Options that the host decides itself.
_RESERVED = frozenset({"host", "port", "api-key-file", "served-model-name", "boot-id", "device"})
_OPTION_NAME = re.compile(r"[a-z][a-z0-9-]*")


def engine_argv(engine: Path, spec: ReplicaSpec, placement: Placement, *, port: int, api_key_file: Path) -> list[str]:
    """``slipway-serve`` under a parent-death signal, so that the host's death, however sudden, is the engine's too.

    A limit of memory is one of each process's own data (RLIMIT_DATA in getrlimit(2)): weights read through a mapped
    file do not count, and the engine process holds nearly all the rest. A limit of processors is an affinity mask.

    :raises ProviderError: an option that an engine must not be given.
    """
    options = {
        "host": "127.0.0.1",
        "port": str(port),
        "api-key-file": str(api_key_file),
        "served-model-name": spec.served_model_name,
        "boot-id": spec.boot_token,
        "device": "cpu" if spec.hardware_id == CPU_HARDWARE else "cuda",
    }
    for name, value in spec.engine_options.items():
        if name in _RESERVED or not _OPTION_NAME.fullmatch(name):
            raise ProviderError(f"the engine option {name!r} cannot be set", "Launch without it.")
        options[name] = value
    flags = [f"--{name}={value}" for name, value in options.items()]
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
