"""Slipway's own images, built by Podman on a base that debootstrap made: no registry is needed, package indexes are.

What this machine is told about indexes and certificates (pip's configuration, its certificate bundle) the build is told
as well.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from tests.support.podman import Podman, running_podman
from tests.support.rootfs import rootfs_tar

ROOT = Path(__file__).parents[2]
BASE = "localhost/base:1"
_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
#: Inside the build, where the base's own bundle must stay untouched.
_BUNDLE_INSIDE = "/run/certificates.crt"
_BUILD_S = 1500


@contextmanager
def building_podman() -> Iterator[Podman]:
    """A Podman that may download, with the base."""
    with running_podman(own_network=False) as podman:
        podman.import_image(rootfs_tar(), BASE)
        yield podman


def build(podman: Podman, name: Literal["serving_image", "control_plane"]) -> str:
    """Build ``docker/<name>.Dockerfile``; what the image is called.

    :raises RuntimeError: a step failed.
    """
    return build_file(podman, ROOT / "docker" / f"{name}.Dockerfile", f"localhost/slipway-{name.replace('_', '-')}:1")


def build_file(podman: Podman, file: Path, tag: str) -> str:
    """Build the image ``tag`` of the Dockerfile ``file``; returns the tag.

    :raises RuntimeError: a step failed.
    """
    # Docker's own format: OCI's has no place for a health check.
    flags = [
        "--format=docker",
        "--network=host",
        "--build-arg",
        f"BASE_IMAGE={BASE}",
        "--volume",
        f"{_BUNDLE}:{_BUNDLE_INSIDE}:ro",
    ]
    for variable in ("PIP_CERT", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"):
        flags += ["--env", f"{variable}={_BUNDLE_INSIDE}"]
    for link in _find_links():
        flags += ["--volume", f"{link}:{link}:ro"]
    if links := _find_links():
        flags += ["--env", f"PIP_FIND_LINKS={' '.join(links)}"]
    podman.run("build", *flags, "-f", str(file), "-t", tag, str(ROOT), timeout_s=_BUILD_S)
    return tag


def inspect(podman: Podman, tag: str) -> dict[str, Any]:
    """What Podman says of a built image."""
    (found,) = json.loads(podman.run("image", "inspect", tag))
    return dict(found)


def copy(source: Podman, target: Podman, tag: str) -> None:
    """Bring an image into another Podman's storage."""
    with tempfile.TemporaryDirectory(prefix="slipway-image-") as folder:
        archive = Path(folder) / "image.tar"
        source.run("save", "--output", str(archive), tag)
        target.run("load", "--input", str(archive))


def _find_links() -> list[str]:
    """Local folders with wheels that this machine's pip looks into."""
    argv = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    values = [line.partition("=")[2].strip("'\"") for line in listed.splitlines() if "find-links" in line]
    folders = {folder for value in [*values, os.environ.get("PIP_FIND_LINKS", "")] for folder in value.split()}
    return sorted(folder for folder in folders if Path(folder).is_dir())
