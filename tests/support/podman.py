"""A real Podman with storage of its own, and its service that speaks Docker's API."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from docker.api import APIClient
from docker.errors import APIError
from requests import RequestException

from tests.support.processes import eventually
from tests.support.sandbox import Sandbox, running_sandbox

#: runc and cgroupfs: crun refuses a machine with both versions of cgroups, and there may be no systemd. Limits within
#: what a root without CAP_SYS_RESOURCE may set. Locks in files: those in shared memory are every Podman's.
_CONFIGURATION = """
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=15000:15000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
"""
_REGISTRIES = """
unqualified-search-registries = ["docker.io"]
[[registry]]
location = "{address}"
insecure = true
"""


@dataclass
class Podman:
    """A running one. ``docker_host`` is its service's socket; containers go on while the service is down.

    ``registry`` is the address (host and port) on the outside that it accepts as a registry without TLS.
    """

    sandbox: Sandbox
    folder: Path
    docker_host: str
    registry: str
    _service: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def publish_address(self) -> str:
        """Where this machine reaches ports that containers publish."""
        return self.sandbox.address

    @property
    def log(self) -> Path:
        """What the service says."""
        return self.folder / "service.log"

    def argv(self, *arguments: str) -> list[str]:
        """A ``podman`` command of this Podman."""
        places = ["--root", str(self.folder / "root"), "--runroot", "/run/podman", "--tmpdir", "/run/podman-tmp"]
        return ["podman", *places, "--network-config-dir", str(self.folder / "networks"), *arguments]

    @property
    def environment(self) -> dict[str, str]:
        """What its commands need beside the usual."""
        return {
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self.folder / "registries.conf"),
        }

    def run(self, *arguments: str, timeout_s: float = 250) -> str:
        """Run a ``podman`` command; what it printed.

        :raises RuntimeError: it failed.
        """
        return self.sandbox.run(self.argv(*arguments), environment=self.environment, timeout_s=timeout_s).stdout

    def import_image(self, tar: Path, name: str, changes: Sequence[str] = ()) -> None:
        """Make the image ``name`` of a root filesystem; ``changes`` are lines of a Dockerfile."""
        flags = [flag for change in changes for flag in ("--change", change)]
        self.run("import", *flags, str(tar), name)

    def start_service(self) -> None:
        """Serve Docker's API; returns when it answers."""
        socket = Path(self.docker_host.removeprefix("unix://"))
        socket.unlink(missing_ok=True)
        argv = self.argv("system", "service", "--time=0", self.docker_host)
        self._service = self.sandbox.start(argv, self.log, self.environment)
        eventually(lambda: answers(self.docker_host), f"Podman's service answers (see {self.log})")

    def stop_service(self) -> None:
        """Kill the service, and nothing else."""
        if self._service is not None:
            end_inside(self._service)
            self._service = None


@contextmanager
def running_podman(*, own_network: bool = True) -> Iterator[Podman]:
    """Start one in a sandbox, with an empty storage and its service; everything is gone afterwards.

    :param own_network: False shares the machine's network: ``podman build`` then downloads what it needs.
    """
    with tempfile.TemporaryDirectory(prefix="slipway-podman-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with running_sandbox(own_network=own_network) as sandbox:
            registry = f"{sandbox.outside}:5000"
            (folder / "containers.conf").write_text(_CONFIGURATION)
            (folder / "registries.conf").write_text(_REGISTRIES.format(address=registry))
            podman = Podman(sandbox, folder, f"unix://{folder / 'podman.sock'}", registry)
            podman.start_service()
            yield podman


def end_inside(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL the daemon that :meth:`Sandbox.start` started, and wait until it is gone."""
    daemon = psutil.Process(process.pid).children()
    for child in daemon:
        child.kill()
    process.wait(30)


def answers(docker_host: str) -> bool:
    """Whether a daemon answers at this address."""
    try:
        with closing(APIClient(docker_host, version="1.41", timeout=2)) as client:
            return bool(client.ping())
    except (APIError, RequestException):
        return False
