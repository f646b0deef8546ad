"""One node of a test cluster: a real kubelet over a containerd of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

from tests.support.podman import end_inside
from tests.support.processes import eventually
from tests.support.sandbox import Sandbox

_CGROUPS = Path("/sys/fs/cgroup")
#: Before the process id of the sandbox that a cgroup belongs to.
_CGROUP_PREFIX = "slipway-test-"
_CONTAINERD = """
version = 2
root = "{folder}/root"
state = "/run/{name}"
oom_score = 0
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  stream_server_address = "{address}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
"""
#: Pods share the node's network, so this one is never asked for an address; a node without any is not ready.
_LOOPBACK = '{"cniVersion": "0.3.1", "name": "loopback", "type": "loopback"}'


@dataclass
class Node:
    """``address`` is its own, and where its pods listen; ``name`` what the cluster calls it."""

    name: str
    address: str
    sandbox: Sandbox
    folder: Path
    kubelet_program: Path
    kubeconfig: Path
    _containerd: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _kubelet: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def cgroup(self) -> str:
        """The name of its cgroup, in every hierarchy."""
        return f"{_CGROUP_PREFIX}{self.sandbox.init_pid}-{self.name}"

    def prepare(self, images: Sequence[Path]) -> None:
        """Start containerd and give it ``images``."""
        (self.folder / "cni").mkdir(parents=True)
        (self.folder / "cni" / "loopback.conf").write_text(_LOOPBACK)
        configuration = _CONTAINERD.format(folder=self.folder, name=self.name, address=self.address)
        (self.folder / "config.toml").write_text(configuration)
        (self.folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        self._make_cgroups()
        (self.folder / "kubelet.yaml").write_text(yaml.safe_dump(self._kubelet_configuration()))
        self._containerd = self.sandbox.start(
            ["containerd", "--config", str(self.folder / "config.toml")], self.folder / "containerd.log"
        )
        eventually(self._containerd_answers, f"containerd answers (see {self.folder}/containerd.log)", 60)
        for image in images:
            self.sandbox.run([*self._ctr, "images", "import", str(image)])

    def start_kubelet(self) -> None:
        """Begin, or be there again."""
        self._kubelet = self.sandbox.start(
            [
                str(self.kubelet_program),
                f"--config={self.folder / 'kubelet.yaml'}",
                f"--kubeconfig={self.kubeconfig}",
                f"--hostname-override={self.name}",
                f"--node-ip={self.address}",
                "--container-runtime=remote",
                f"--container-runtime-endpoint=unix://{self.folder}/containerd.sock",
                f"--root-dir={self.folder / 'kubelet'}",
                f"--cert-dir={self.folder / 'pki'}",
            ],
            self.folder / "kubelet.log",
        )

    def kill_kubelet(self) -> None:
        """The node falls silent; what runs there runs on."""
        if self._kubelet is not None:
            end_inside(self._kubelet)
            self._kubelet = None

    @property
    def _ctr(self) -> list[str]:
        return ["ctr", "--address", str(self.folder / "containerd.sock"), "--namespace", "k8s.io"]

    def _containerd_answers(self) -> bool:
        try:
            self.sandbox.run([*self._ctr, "version"])
        except RuntimeError:
            return False
        return True

    def _make_cgroups(self) -> None:
        for hierarchy in _hierarchies():
            (hierarchy / self.cgroup).mkdir(exist_ok=True)
            if hierarchy.name == "cpuset":  # a new one may use no processor until it is told which
                for file in ("cpuset.cpus", "cpuset.mems"):
                    (hierarchy / self.cgroup / file).write_text((hierarchy / file).read_text())

    def _kubelet_configuration(self) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.address,
            "readOnlyPort": 0,
            "healthzBindAddress": self.address,
            "cgroupDriver": "cgroupfs",
            "clusterDNS": ["127.0.0.1"],  # nobody serves names there, and says so at once
            "cgroupRoot": f"/{self.cgroup}",
            "enforceNodeAllocatable": [],
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "evictionHard": {"memory.available": "1Mi"},
            "imageGCHighThresholdPercent": 100,
            "makeIPTablesUtilChains": False,
            "maxOpenFiles": 20000,
            "nodeLeaseDurationSeconds": 10,
            "nodeStatusUpdateFrequency": "2s",
            "syncFrequency": "5s",  # at which 1.20 notices the end of a pod that never started
            "resolvConf": str(self.folder / "resolv.conf"),
            "volumePluginDir": str(self.folder / "volume-plugins"),
        }


def remove_cgroups() -> None:
    """Those of sandboxes that are gone, the present one's or a killed test's: they are empty."""
    for top in _CGROUPS.glob(f"*/{_CGROUP_PREFIX}*"):
        if psutil.pid_exists(int(top.name.removeprefix(_CGROUP_PREFIX).partition("-")[0])):
            continue
        inside = [path for path in top.rglob("*") if path.is_dir()]
        for folder in [*sorted(inside, key=lambda path: len(path.parts), reverse=True), top]:
            with suppress(OSError):
                folder.rmdir()


def _hierarchies() -> list[Path]:
    """Those of version 1; on a hybrid machine the one of version 2 controls nothing."""
    return [path for path in _CGROUPS.iterdir() if path.is_dir() and path.name != "unified"]
