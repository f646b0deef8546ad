"""A real dockerd with storage, bridge and firewall rules of its own."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from docker.api import APIClient

from tests.support.certificates import write_certificates
from tests.support.podman import answers, end_inside
from tests.support.processes import eventually
from tests.support.sandbox import Sandbox, running_sandbox


@dataclass
class Dockerd:
    """A running one. ``docker_host`` is its socket; with ``--live-restore`` containers go on while it is down.

    ``registry`` is the address (host and port) on the outside that it accepts as a registry without TLS.
    """

    sandbox: Sandbox
    folder: Path
    docker_host: str
    registry: str
    _daemon: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def publish_address(self) -> str:
        """Where this machine reaches ports that containers publish."""
        return self.sandbox.address

    @property
    def tls_host(self) -> str:
        """Its address over TCP, where it wants a client certificate."""
        return f"tcp://{self.sandbox.address}:2376"

    @property
    def certificates(self) -> Path:
        """A folder with ``ca.pem``, ``cert.pem`` and ``key.pem``: the server's, and good for clients."""
        return self.folder / "certificates"

    @property
    def log(self) -> Path:
        """What the daemon says."""
        return self.folder / "dockerd.log"

    def import_image(self, tar: Path, name: str, changes: Sequence[str] = ()) -> None:
        """Make the image ``name`` of a root filesystem; ``changes`` are lines of a Dockerfile."""
        repository, _, tag = name.rpartition(":")
        with closing(APIClient(self.docker_host, version="1.41", timeout=120)) as client:
            client.import_image(str(tar), repository=repository, tag=tag, changes=list(changes))

    def start_service(self) -> None:
        """Start the daemon; returns when it answers."""
        pem = {name: str(self.certificates / f"{name}.pem") for name in ("ca", "cert", "key")}
        argv = ["dockerd", "--data-root", str(self.folder / "data"), "--exec-root", "/run/docker"]
        argv += ["--pidfile", "/run/docker.pid", "--host", self.docker_host, "--live-restore"]
        argv += ["--storage-driver=overlay2", "--insecure-registry", self.registry]
        argv += ["--host", self.tls_host, "--tlsverify"]
        argv += ["--tlscacert", pem["ca"], "--tlscert", pem["cert"], "--tlskey", pem["key"]]
        argv += ["--add-runtime", "nvidia=runc"]
        environment = {"PATH": f"{self.folder}/bin:{os.environ['PATH']}"}
        self._daemon = self.sandbox.start(argv, self.log, environment)
        eventually(lambda: answers(self.docker_host), f"dockerd answers (see {self.log})", 60)

    def stop_service(self) -> None:
        """Kill the daemon, and nothing else."""
        if self._daemon is not None:
            end_inside(self._daemon)
            self._daemon = None


@contextmanager
def running_dockerd() -> Iterator[Dockerd]:
    """Start one in a sandbox, with an empty storage; everything is gone afterwards.

    It believes that the NVIDIA Container Toolkit is installed: a runtime of that name, and the hook, which here does
    nothing. What it would give a container is seen in the container's environment.
    """
    with tempfile.TemporaryDirectory(prefix="slipway-dockerd-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        hook = folder / "bin" / "nvidia-container-runtime-hook"
        hook.parent.mkdir()
        hook.write_text("#!/bin/sh\nexit 0\n")
        hook.chmod(0o755)
        with running_sandbox() as sandbox:
            dockerd = Dockerd(sandbox, folder, f"unix://{folder / 'docker.sock'}", f"{sandbox.outside}:5000")
            write_certificates(dockerd.certificates, sandbox.address)
            dockerd.start_service()
            yield dockerd
