"""Container images as ``ctr images import`` takes them, made without a builder."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class File(NamedTuple):
    """A file of a layer."""

    content: bytes
    mode: int = 0o644


def write_layer(path: Path, files: Mapping[str, File]) -> Path:
    """A layer of ``files`` (absolute paths in the image) at ``path``."""
    with tarfile.open(path, "w") as tar:
        for name, file in files.items():
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.size, entry.mode = len(file.content), file.mode
            tar.addfile(entry, io.BytesIO(file.content))
    return path


def write_image(path: Path, name: str, layers: Sequence[Path], configuration: Mapping[str, object]) -> Path:
    """An archive at ``path`` of the image ``name``: uncompressed ``layers``, lowest first, and its configuration.

    Format: ``manifest.json`` of "docker save" (Docker image specification v1.2).
    """
    digests = [f"sha256:{_digest(layer)}" for layer in layers]
    image = {
        "architecture": "amd64",
        "os": "linux",
        "config": dict(configuration),
        "rootfs": {"type": "layers", "diff_ids": digests},
    }
    names = [f"layer{number}.tar" for number in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": names}]
    with tarfile.open(path, "w") as tar:
        for entry_name, value in (("config.json", image), ("manifest.json", manifest)):
            data = json.dumps(value).encode()
            entry = tarfile.TarInfo(entry_name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        for entry_name, layer in zip(names, layers, strict=True):
            tar.add(layer, entry_name)
    return path


def pause_image(folder: Path) -> Path:
    """The image of the process that holds a pod's namespaces: Debian's static ``catatonit``."""
    program = shutil.which("catatonit")
    if program is None:
        raise RuntimeError("catatonit is not installed: scripts/setup brings it")
    layer = write_layer(folder / "pause-layer.tar", {"/pause": File(Path(program).read_bytes(), 0o755)})
    return write_image(folder / "pause.tar", "localhost/pause:1", [layer], {"Entrypoint": ["/pause", "-P"]})


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
