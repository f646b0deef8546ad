"""A real Slurm cluster on this machine: a controller, two nodes of eight pretended GPUs each, and slurmrestd with JWT.

The GPUs are device files that nobody opens, which is all that Slurm looks at. Jobs run as an unprivileged user, so
that what the provider says about who may read what is tried as well. Needs root, as Slurm's own daemons do.
"""

from __future__ import annotations

import os
import pwd
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.support.processes import eventually
from tests.support.slurm_guard import processes_of

#: A user of every Debian without a shell or files of its own; Slurm refuses ``nobody``.
JOB_USER = "daemon"
NODES = ("node1", "node2")
GPUS_PER_NODE = 8

_CONF = """\
ClusterName=slipway
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket,cred_expire=5
CryptoType=crypto/munge
AuthAltTypes=auth/jwt
AuthAltParameters=jwt_key={folder}/jwt.key
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
GresTypes=gpu
MaxJobCount=1000
InactiveLimit=0
KillWait=2
MinJobAge=300
SlurmctldTimeout=10
SlurmdTimeout=3
MessageTimeout=3
TCPTimeout=1
Waittime=0
NodeName=node[1-2] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[{ports[2]}-{ports[3]}] CPUs={cpus} RealMemory=64000 \
Gres=gpu:h200:8 State=UNKNOWN
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO PriorityTier=10 DefMemPerNode=512
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP OverSubscribe=NO PriorityTier=50 DefMemPerNode=512
SlurmdParameters=config_overrides
"""


class SlurmCluster:
    """The daemons, each by its name: ``slurmctld``, ``slurmrestd``, ``node1``, ``node2``, ``munged``."""

    def __init__(self, folder: Path, cpus_per_node: int) -> None:
        self.folder = folder
        self._cpus = cpus_per_node
        self.rest_port, *self._ports = _free_ports(5)
        self.jwt_key_file = folder / "jwt.key"
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        """Where slurmrestd listens."""
        return f"http://127.0.0.1:{self.rest_port}"

    def write_configuration(self) -> None:
        """slurm.conf, gres.conf, the keys and the device files."""
        for name in ("run", "log", "state", "spool", "dev", "munge"):
            (self.folder / name).mkdir()
        (self.folder / "slurm.conf").write_text(_CONF.format(folder=self.folder, ports=self._ports, cpus=self._cpus))
        devices = f"{self.folder}/dev/nvidia[0-{GPUS_PER_NODE - 1}]"
        (self.folder / "gres.conf").write_text(f"NodeName=node[1-2] Name=gpu Type=h200 File={devices}\n")
        for number in range(GPUS_PER_NODE):
            os.mknod(self.folder / f"dev/nvidia{number}", 0o20666, os.makedev(1, 3))
        for path in (self.jwt_key_file, self.folder / "munge/munge.key"):
            path.write_bytes(secrets.token_bytes(128))
            path.chmod(0o600)

    def start(self, name: str, *options: str) -> None:
        """Start a daemon; it is ended with this process, whatever ends it."""
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SLURM_CONF": str(self.folder / "slurm.conf")}
        argv = ["setpriv", "--pdeathsig", "KILL", *self._command(name), *options]
        if name == "slurmrestd":
            environment["SLURM_JWT"] = "daemon"
        with (self.folder / f"log/{name}.out").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                argv, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    def _command(self, name: str) -> list[str]:
        run = self.folder / "run"
        match name:
            case "munged":
                files = {"key-file": self.folder / "munge/munge.key", "socket": run / "munge.socket"}
                files |= {"pid-file": run / "munged.pid", "log-file": self.folder / "munge/log"}
                files |= {"seed-file": self.folder / "munge/seed"}
                return ["--", "munged", "--force", "--foreground", *(f"--{key}={path}" for key, path in files.items())]
            case "slurmctld":
                return ["--", "slurmctld", "-D"]
            case "slurmrestd":  # refuses to be root, and to be the user that Slurm itself runs as
                user = ["--reuid", "slurm", "--regid", "slurm", "--clear-groups", "--"]
                api = ["slurmrestd", "-a", "rest_auth/jwt", "-s", "openapi/v0.0.38", f"127.0.0.1:{self.rest_port}"]
                return [*user, *api]
            case _:
                return ["--", "slurmd", "-D", "-N", name]

    def stop(self, name: str, number: int = signal.SIGKILL) -> None:
        """End a daemon, by default as a crash would."""
        daemon = self._daemons.pop(name, None)
        if daemon is not None:
            daemon.send_signal(number)
            daemon.wait(30)

    def lose_memory(self) -> None:
        """Restart the controller without what it knew of jobs."""
        self.stop("slurmctld")
        # Nodes remember ids and refuse to run a second job of one.
        with (self.folder / "slurm.conf").open("a") as conf:
            conf.write("FirstJobId=100000\n")
        self.start("slurmctld", "-c")
        self.wait_until_ready()

    def scontrol(self, *arguments: str) -> str:
        """What ``scontrol`` answers.

        :raises CalledProcessError: it failed.
        """
        return self.command("scontrol", *arguments)

    def command(self, *argv: str) -> str:
        """The output of one of Slurm's commands, run as root."""
        environment = {"PATH": "/usr/bin:/bin", "SLURM_CONF": str(self.folder / "slurm.conf")}
        return subprocess.run(argv, env=environment, capture_output=True, text=True, check=True, timeout=30).stdout

    def token(self, lifespan_s: int = 3600) -> str:
        """A JWT of the jobs' user."""
        answer = self.scontrol("token", f"lifespan={lifespan_s}", f"username={JOB_USER}")
        return answer.strip().removeprefix("SLURM_JWT=")

    def node_states(self) -> dict[str, str]:
        """Each node's state as ``sinfo`` writes it: ``idle``, ``mixed``, ``down*`` …"""
        try:
            lines = self.command("sinfo", "-h", "-N", "-p", "gpu", "-o", "%N %T").splitlines()
        except subprocess.CalledProcessError:
            return {}
        return dict(line.split() for line in lines)

    def wait_until_ready(self) -> None:
        """Until both nodes take jobs and slurmrestd listens."""
        eventually(lambda: self._up() == set(NODES), f"both nodes are up ({self.folder})", 60)
        eventually(lambda: _listens(self.rest_port), "slurmrestd listens", 30)

    def _up(self) -> set[str]:
        return {name for name, state in self.node_states().items() if state in {"idle", "mixed", "allocated"}}

    def processes(self) -> list[psutil.Process]:
        """Every process of this cluster, job steps and what they started included."""
        return processes_of(self.folder)


@contextmanager
def running_slurm(cpus_per_node: int = 16) -> Iterator[SlurmCluster]:
    """A cluster, ready for jobs; its folder can be read by every user. All of it is gone afterwards."""
    # Not pytest's folder: only its owner can read that, and jobs run as another user.
    folder = Path(tempfile.mkdtemp(prefix="slipway-slurm-"))
    folder.chmod(0o755)
    with _guarded(folder):
        cluster = SlurmCluster(folder, cpus_per_node)
        cluster.write_configuration()
        cluster.start("munged")
        eventually((folder / "run/munge.socket").exists, "munged listens")
        cluster.start("slurmctld", "-c")
        for name in (*NODES, "slurmrestd"):
            cluster.start(name)
        cluster.wait_until_ready()
        yield cluster


@contextmanager
def _guarded(folder: Path) -> Iterator[None]:
    """Have the cluster ended at the end of this block, or of this process, however it ends."""
    argv = [sys.executable, "-m", "tests.support.slurm_guard", str(folder)]
    root = Path(__file__).parents[2]
    guard = subprocess.Popen(argv, cwd=root, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        guard.communicate()
    if guard.returncode:
        raise RuntimeError(f"something of the cluster in {folder} is left")


def chown_to_job_user(path: Path) -> None:
    """Give a file or folder to the user that jobs run as."""
    user = pwd.getpwnam(JOB_USER)
    os.chown(path, user.pw_uid, user.pw_gid)


def _free_ports(count: int) -> list[int]:
    """Free ports that follow each other, as Slurm wants its nodes'; below those that the kernel gives out by chance."""
    while True:
        first = 20000 + secrets.randbelow(12000)
        ports = list(range(first, first + count))
        if not any(_listens(port) for port in ports):
            return ports


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
