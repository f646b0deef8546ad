"""Real SSH hosts on loopback addresses: an sshd each, with its own host key, home folder and programs."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from control_plane.providers.ssh_host.settings import SshHost
from tests.support import tiny_engine
from tests.support.processes import eventually

ROOT = Path(__file__).parents[2]


@dataclass
class SshdHost:
    """One machine: what a test does to it, and how the provider is told of it."""

    name: str
    address: str
    folder: Path
    key_file: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def state_dir(self) -> Path:
        """Where the supervisor keeps its files."""
        return self.folder / "state"

    @property
    def hub_cache(self) -> Path:
        """Its Hugging Face cache."""
        return self.folder / "hub"

    @property
    def bin(self) -> Path:
        """On its PATH, before everything else."""
        return self.folder / "bin"

    @property
    def public_host_key(self) -> str:
        """As OpenSSH writes it."""
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])

    @property
    def fingerprint(self) -> str:
        """Of the host key."""
        argv = ["ssh-keygen", "-lf", str(self.folder / "host_key.pub")]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()[1]

    def settings(self, **changes: object) -> SshHost:
        """For ``ssh_hosts``."""
        values: dict[str, object] = {
            "name": self.name,
            "address": self.address,
            "port": self.port,
            "user": getpass.getuser(),
            "key_file": self.key_file,
            "host_key": self.public_host_key,
            "engine": str(self.bin / "slipway-serve"),
            "state_dir": str(self.state_dir),
            "hub_cache": str(self.hub_cache),
            "price_per_hour": 1.5,
        }
        return SshHost.model_validate(values | changes)

    def add_program(self, name: str, text: str) -> None:
        """Put a program on the host's PATH."""
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def start(self) -> None:
        """Listen again, on the port that it had."""
        config = self.folder / "sshd_config"
        config.write_text(
            f"ListenAddress {self.address}\nPort {self.port}\nHostKey {self.folder / 'host_key'}\n"
            f"AuthorizedKeysFile {self.folder / 'authorized_keys'}\nPidFile {self.folder / 'sshd.pid'}\n"
            f"SetEnv PATH={self.bin}:{os.environ['PATH']}\nUsePAM no\nStrictModes no\nPasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\nSubsystem sftp internal-sftp\nLogLevel ERROR\nMaxStartups 100\n"
        )
        sshd = shutil.which("sshd") or "/usr/sbin/sshd"
        argv = ["setpriv", "--pdeathsig", "KILL", "--", sshd, "-D", "-e", "-f", str(config)]
        with (self.folder / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)
        eventually(self._answers, f"sshd of {self.name} answers")

    def stop(self) -> None:
        """Kill sshd and every session: nobody can ask the host anything. What runs there goes on."""
        if self.process is None:
            return
        sessions = psutil.Process(self.process.pid).children(recursive=False)
        self.process.kill()
        self.process.wait(10)
        for session in sessions:
            for process in [*session.children(recursive=True), session]:
                if process.is_running() and process.name() == "sshd":
                    process.kill()
        self.process = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.address, self.port), timeout=2) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def watchers(self) -> list[psutil.Process]:
        """The supervisor's processes of this host."""
        return [process for process in psutil.process_iter(["cmdline"]) if self._is_watcher(process)]

    def _is_watcher(self, process: psutil.Process) -> bool:
        argv = process.info["cmdline"] or []
        return str(self.state_dir) in argv and "run" in argv

    def end_everything(self) -> None:
        """Whatever its replicas' supervisors run dies with them."""
        for process in self.watchers():
            process.send_signal(signal.SIGKILL)


@contextmanager
def running_hosts(folder: Path, *addresses: str) -> Iterator[list[SshdHost]]:
    """Hosts ``alpha``, ``beta`` … at ``addresses``, each with the tiny engine and the agent; one user key for all."""
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd locks its unprivileged child in
    folder.mkdir(parents=True, exist_ok=True)
    key = folder / "user_key"
    _make_key(key)
    hosts = [
        SshdHost(name, address, folder / name, key)
        for name, address in zip(["alpha", "beta", "gamma"], addresses, strict=False)
    ]
    try:
        for host in hosts:
            _set_up(host)
            host.start()
        yield hosts
    finally:
        for host in hosts:
            host.end_everything()
            host.stop()


def _set_up(host: SshdHost) -> None:
    host.bin.mkdir(parents=True)
    _make_key(host.folder / "host_key")
    shutil.copy(host.key_file.with_suffix(".pub"), host.folder / "authorized_keys")
    with socket.create_server((host.address, 0)) as listener:
        host.port = listener.getsockname()[1]
    # The engine ends with the tests, should they be killed: nothing else would end it, which is the point of it.
    watchdog = (
        f"import os, threading, time\ndef watch():\n    while os.path.exists('/proc/{os.getpid()}'):\n"
        "        time.sleep(0.5)\n    os._exit(1)\nthreading.Thread(target=watch, daemon=True).start()\n"
    )
    engine = f"import runpy\nrunpy.run_path({tiny_engine.__file__!r}, run_name='__main__')\n"
    host.add_program("slipway-serve", f"#!{sys.executable}\n{watchdog}{engine}")
    agent = [sys.executable, "-m", "control_plane.agent"]
    host.add_program(
        "slipway-agent", f'#!/bin/sh\nexport PYTHONPATH={shlex.quote(str(ROOT))}\nexec {shlex.join(agent)} "$@"\n'
    )


def _make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
