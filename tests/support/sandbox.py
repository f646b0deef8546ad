"""A place for daemons that change a machine: containers, mounts, bridges, firewall rules. All of it ends with the test.

::

    test ──pdeathsig──► unshare ──kill-child──► init of its own process, mount, network and IPC namespaces
                                                  └─ daemons, their containers, mounts, bridges, iptables rules

The kernel ends every process of a process namespace with its init, and takes mounts, interfaces and rules away with
the last process in their namespaces. So nothing is left however the test ends, and two suites never meet.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import IO

import psutil

from tests.support.processes import alive, eventually, family

#: ``/run`` of its own: sockets and locks at fixed addresses there are not the machine's.
_INIT = "mount -t tmpfs tmpfs /run && mkdir -p /run/lock && ip link set lo up && exec catatonit -P"


@dataclass(frozen=True)
class Sandbox:
    """A running one. ``address`` is how the machine reaches what listens inside; ``outside`` how the inside reaches
    the machine. Both are of the range that RFC 2544 sets apart for measurements."""

    init_pid: int
    address: str
    outside: str
    _stack: ExitStack = field(repr=False)

    def argv(self, argv: Sequence[str]) -> list[str]:
        """``argv`` run inside, in the folder ``/``."""
        return ["nsenter", "-t", str(self.init_pid), "-m", "-p", "-n", "-i", "--wd=/", "--", *argv]

    def run(
        self, argv: Sequence[str], *, environment: Mapping[str, str] | None = None, timeout_s: float = 250
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end.

        :raises RuntimeError: it failed; carries what it said.
        """
        full = dict(os.environ) | dict(environment or {})
        done = subprocess.run(self.argv(argv), capture_output=True, text=True, env=full, timeout=timeout_s, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def start(
        self, argv: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a daemon, whose output goes to ``log``; it ends with the sandbox at the latest."""
        output: IO[bytes] = self._stack.enter_context(log.open("ab"))
        return subprocess.Popen(
            self.argv(["setpriv", "--pdeathsig", "KILL", "--", *argv]),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(os.environ) | dict(environment or {}),
        )


@contextmanager
def running_sandbox(*, own_network: bool = True) -> Iterator[Sandbox]:
    """Make one, joined to this machine by a pair of virtual network interfaces.

    :param own_network: False shares the machine's network, for what must download something.
    """
    flags = ["--mount", "--pid", "--ipc", "--fork", "--kill-child=KILL", "--mount-proc", *["--net"][:own_network]]
    argv = ["setpriv", "--pdeathsig", "KILL", "--", "unshare", *flags, "--", "sh", "-c", _INIT]
    with ExitStack() as stack:
        outer = subprocess.Popen(argv)
        try:
            eventually(lambda: outer.poll() is not None or _init_of(outer.pid), "the sandbox has an init")
            init = _init_of(outer.pid)
            if init is None:
                raise RuntimeError("a sandbox needs root, unshare (util-linux), ip (iproute2) and catatonit")
            outside, address = _connect(init) if own_network else ("127.0.0.1", "127.0.0.1")
            yield Sandbox(init, address, outside, stack)
        finally:
            inside = family(outer.pid)
            groups = _control_groups(inside)
            outer.kill()
            outer.wait(30)
            eventually(lambda: not alive(inside), "the sandbox is empty")
            for group in groups:
                with suppress(OSError):
                    group.rmdir()


def _init_of(outer: int) -> int | None:
    """The init, once it has replaced the shell that prepared everything."""
    for child in psutil.Process(outer).children():
        if child.name() == "catatonit":
            return child.pid
    return None


def _control_groups(processes: list[psutil.Process]) -> set[Path]:
    """Folders of the control groups made for ``processes``: the one thing that no namespace takes along."""
    ours, found = Path("/proc/self/cgroup").read_text().splitlines(), set()
    for process in processes:
        try:
            lines = Path(f"/proc/{process.pid}/cgroup").read_text().splitlines()
        except OSError:
            continue  # it has ended
        for _, controllers, path in (line.split(":", 2) for line in lines if line not in ours):
            for name in (*controllers.removeprefix("name=").split(","), "unified"):
                found.add(Path("/sys/fs/cgroup") / name / path.lstrip("/"))
    return found


def _connect(init: int) -> tuple[str, str]:
    """A network of two addresses between machine and sandbox; the interfaces go when the sandbox goes."""
    interface = f"slip{init}"
    first = IPv4Address("198.18.0.0") + 4 * (init % (1 << 15))  # of as many networks as the range has
    outside, inside = str(first + 1), str(first + 2)
    in_namespace = ["nsenter", "-t", str(init), "-n", "--"]
    for argv in (
        ["ip", "link", "add", interface, "type", "veth", "peer", "name", "eth0", "netns", str(init)],
        ["ip", "address", "add", f"{outside}/30", "dev", interface],
        ["ip", "link", "set", interface, "up"],
        [*in_namespace, "ip", "address", "add", f"{inside}/30", "dev", "eth0"],
        [*in_namespace, "ip", "link", "set", "eth0", "up"],
        [*in_namespace, "ip", "route", "add", "default", "via", outside],
    ):
        subprocess.run(argv, check=True, timeout=20)
    return outside, inside
