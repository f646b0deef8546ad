"""A replica as the body of Docker's "create a container"."""

from __future__ import annotations

import stat
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from control_plane.providers.base import ProviderError, ReplicaSpec, Weights
from control_plane.providers.docker_api.options import DockerOptions
from control_plane.providers.engine_flags import check_name, check_options, engine_flags

OWNER_LABEL = "slipway.installation"
BOOT_LABEL = "slipway.boot"
#: Devices that a container holds, by id with commas between, and what it needs of each (bytes).
DEVICES_LABEL = "slipway.devices"
MEMORY_LABEL = "slipway.memory-bytes"
#: What comes from :attr:`ReplicaSpec.labels` is kept under this prefix.
SPEC_LABEL = "slipway.spec."

PORT = "8000/tcp"
CPU_HARDWARE = "docker-cpu"
#: An anonymous volume: it is made and removed with its container, and can be written before the container starts.
SECRETS = "/run/slipway"

_WEIGHTS = "/weights"
_CACHE = "/var/cache/slipway"
_GIB = 1 << 30
_PIDS = 4096
#: Compiled kernels are loaded from there, hence "exec"; Docker's own default forbids it.
_SCRATCH = f"rw,exec,nosuid,nodev,mode=1777,size={2 * _GIB}"


class Model(NamedTuple):
    """``folder`` is where the container has the model, ``source`` what of the Docker host has to be at ``/weights``."""

    folder: str
    source: Path | None


def model_of(weights: Weights, options: DockerOptions) -> Model:
    """Where an engine finds its weights.

    A snapshot's files are links to ``../../blobs``: the model's whole folder has to be there for them to resolve. What
    comes with Slipway is in the image, for the Docker host may not see this process's own files.

    :raises ProviderError: they are not there, or engines may not read them.
    """
    if folder := weights.bundled_in(options.bundled_models):
        return Model(folder, None)
    path = weights.path
    if path is None or not path.is_dir():
        raise ProviderError(f"the model folder {path} is not there", "Start again: weights come first.")
    _check_readable(path, *map(int, options.user.split(":")))
    if path.parent.name == "snapshots":
        return Model(f"{_WEIGHTS}/snapshots/{path.name}", path.parent.parent)
    return Model(_WEIGHTS, path)


def check(spec: ReplicaSpec) -> None:
    """Refuse what no Docker host could start.

    :raises ProviderError: says why.
    """
    check_name(spec.name)
    check_options(spec)


def _check_readable(folder: Path, uid: int, gid: int) -> None:
    for file in folder.iterdir():
        found = file.stat()
        bit = stat.S_IRUSR if found.st_uid == uid else stat.S_IRGRP if found.st_gid == gid else stat.S_IROTH
        if not found.st_mode & bit:
            detail = f"engines run as user {uid}, who may not read {file}"
            raise ProviderError(detail, f"Let them: chmod -RL o+rX {folder}, or set SLIPWAY_DOCKER_USER.")


def container_body(
    spec: ReplicaSpec, model: Model, options: DockerOptions, *, network: str, devices: tuple[str, ...]
) -> dict[str, Any]:
    """The body. It carries no secret: the key follows in a file (:func:`key_archive`).

    :param devices: ids of the GPUs that it gets.
    """
    labels = {OWNER_LABEL: spec.owner, BOOT_LABEL: spec.boot_token, MEMORY_LABEL: str(spec.memory_bytes)}
    if devices:
        labels[DEVICES_LABEL] = ",".join(devices)
    return {
        "Image": options.image,
        "User": options.user,
        "Entrypoint": ["slipway-serve"],
        "Cmd": [model.folder, *_flags(spec)],
        "Env": [
            "HF_HUB_OFFLINE=1",  # weights are here already; an engine has no reason to talk to the hub
            "PYTHONUNBUFFERED=1",
            f"HOME={_CACHE}",
            *([] if devices else ["NVIDIA_VISIBLE_DEVICES=void"]),  # where NVIDIA's runtime is the default one
        ],
        "Labels": labels | {f"{SPEC_LABEL}{name}": value for name, value in spec.labels.items()},
        "ExposedPorts": {PORT: {}},
        "Volumes": {SECRETS: {}},
        "Healthcheck": {"Test": ["NONE"]},  # the control plane probes; Podman would never run it
        "HostConfig": _host_config(spec, model.source, options, network=network) | _gpus(devices),
    }


def _flags(spec: ReplicaSpec) -> list[str]:
    return engine_flags(
        spec,
        host="0.0.0.0",  # noqa: S104 (of the container's own network)
        port=PORT.partition("/")[0],
        api_key_file=f"{SECRETS}/api-key",
        device="cpu" if spec.hardware_id == CPU_HARDWARE else "cuda",
    )


def _host_config(spec: ReplicaSpec, source: Path | None, options: DockerOptions, *, network: str) -> dict[str, Any]:
    memory = spec.limits.memory_bytes or options.memory_bytes or 0
    cpus = spec.limits.cpus or options.cpus or 0
    config = {
        "NetworkMode": network,
        "PortBindings": {PORT: [{"HostIp": options.publish_address, "HostPort": ""}]},
        "Mounts": [{"Type": "bind", "Source": str(source), "Target": _WEIGHTS, "ReadOnly": True}] if source else [],
        "Tmpfs": {"/tmp": _SCRATCH, _CACHE: _SCRATCH},  # noqa: S108 (of the container)
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "Init": True,  # reaps an engine's helpers, and passes SIGTERM on
        "Memory": memory,
        "MemorySwap": memory,  # the same: no swap
        "NanoCpus": int(cpus * 1e9),
        "PidsLimit": _PIDS,
        "ShmSize": _GIB,  # how the processes of a tensor-parallel engine talk
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "8m", "max-file": "2"}},
        "RestartPolicy": {"Name": "no"},  # the control plane restarts, and knows why
    }
    if options.runtime:
        config["Runtime"] = options.runtime
    return config


def _gpus(devices: tuple[str, ...]) -> dict[str, Any]:
    if not devices:
        return {}
    return {"DeviceRequests": [{"Driver": "nvidia", "DeviceIDs": list(devices), "Capabilities": [["gpu"]]}]}


def key_archive(api_key: str, user: str) -> bytes:
    """The key as a tar file to unpack at :data:`SECRETS`: readable by the container's user alone."""
    content = f"{api_key}\n".encode()
    entry = tarfile.TarInfo("api-key")
    entry.size, entry.mode = len(content), 0o400
    entry.uid, entry.gid = (int(number) for number in user.split(":"))
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(entry, BytesIO(content))
    return archive.getvalue()
