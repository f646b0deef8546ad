"""The command line and environment that a replica's engine is started with."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from control_plane.providers.base import ProviderError, ReplicaSpec
from control_plane.providers.local_host import hardware

CPU_HARDWARE = "local-cpu"
GPU_HARDWARE_PREFIX = "local-gpu-"

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


def engine_argv(engine: Path, spec: ReplicaSpec, *, port: int, api_key_file: Path) -> list[str]:
    """``slipway-serve`` under a parent-death signal, so that the host's death, however sudden, is the engine's too.

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
    return ["setpriv", "--pdeathsig", "KILL", "--", str(engine), str(spec.weights.path), *flags]


def engine_environment(spec: ReplicaSpec, folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """What of ``environment`` an engine gets, the devices that ``spec`` names, and the marker.

    :raises ProviderError: ``spec.hardware_id`` does not exist here.
    """
    kept = {name: value for name, value in environment.items() if _INHERITED.fullmatch(name)}
    return kept | {
        "CUDA_VISIBLE_DEVICES": _visible_devices(spec.hardware_id),
        "HF_HUB_OFFLINE": "1",  # weights are here already; an engine has no reason to talk to the hub
        "PYTHONUNBUFFERED": "1",
        MARKER: str(folder),
    }


def _visible_devices(hardware_id: str) -> str:
    if hardware_id == CPU_HARDWARE:
        return ""
    for gpu in hardware.gpus():
        if hardware_id == f"{GPU_HARDWARE_PREFIX}{gpu.index}":
            return gpu.uuid
    raise ProviderError(f"there is no hardware {hardware_id!r} on this machine", "Choose one that GET /hardware lists.")


def default_engine() -> Path:
    """``slipway-serve`` of the environment that this process runs in."""
    return Path(sys.executable).with_name("slipway-serve")
