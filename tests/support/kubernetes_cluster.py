"""A real Kubernetes cluster on this machine: etcd, API server, scheduler, controller manager and two kubelets.

::

    sandbox (own processes, mounts, network) ── 198.18.…  etcd, kube-apiserver, -scheduler, -controller-manager
                                             ├─ 100.64.…  node-1: kubelet + containerd; its pods' network
                                             └─ 100.64.…  node-2: kubelet + containerd; its pods' network

There is no network plugin: pods use their node's network, and each node has an address of its own. GPUs are numbers
in a node's status, which is all that the scheduler looks at. The programs come from ``scripts/kubernetes-binaries``.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

import psutil
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from control_plane.errors import SlipwayError
from control_plane.providers.kubernetes_api.client import Json, KubernetesApi
from tests.support.kubernetes_image import pause_image
from tests.support.kubernetes_node import Node, remove_cgroups
from tests.support.podman import end_inside
from tests.support.processes import eventually
from tests.support.rootfs import cache_folder
from tests.support.sandbox import Sandbox, running_sandbox

VERSION = "1.20.2"
GPU_PRODUCT = "Pretend-H200"
GPU_MEMORY_MIB = 141_000
_PORT = 6443
#: Networks of RFC 6598 for the nodes, each as far into its range as the sandbox's is into its own.
_SANDBOXES, _NODES = IPv4Address("198.18.0.0"), IPv4Address("100.64.0.0")


def programs() -> Path:
    """The folder of Kubernetes' programs.

    :raises RuntimeError: they were not built yet.
    """
    folder = cache_folder() / f"kubernetes-{VERSION}"
    if not (folder / "kubelet").exists():
        raise RuntimeError("Kubernetes was not built yet: run scripts/kubernetes-binaries (about nine minutes, once)")
    return folder


@dataclass
class Cluster:
    """A running one. ``kubeconfig`` is its administrator's, and ``admin`` speaks as them."""

    sandbox: Sandbox
    folder: Path
    kubeconfig: Path
    nodes: list[Node] = field(default_factory=list)
    _daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, repr=False)

    @property
    def url(self) -> str:
        """Where the API server listens."""
        return f"https://{self.sandbox.address}:{_PORT}"

    @property
    def admin(self) -> KubernetesApi:
        """The API, with every right."""
        return KubernetesApi(self.kubeconfig)

    def node(self, name: str) -> Node:
        """The node called ``name``."""
        return next(node for node in self.nodes if node.name == name)

    def kubeconfig_of(self, token: str, name: str) -> Path:
        """A kubeconfig that presents ``token``."""
        path = self.folder / f"{name}.kubeconfig"
        cluster = {"server": self.url, "certificate-authority": str(self.folder / "pki" / "apiserver.crt")}
        value = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
            "current-context": "test",
        }
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(value))
        return path

    def apply(self, manifest: Json) -> Json:
        """Server-side apply with every right."""
        return self.admin.apply(manifest_path(manifest), manifest)

    def token_of(self, namespace: str, account: str) -> str:
        """A token of a service account."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 7200},
        }
        return str(json.loads(self.admin.request("POST", path, {}, request) or "{}")["status"]["token"])

    def start(self, program: str, *flags: str) -> None:
        """Start a daemon of the control plane; its output is in the cluster's folder."""
        argv = [str(programs() / program) if program.startswith("kube") else program, *flags]
        self._daemons[program] = self.sandbox.start(argv, self.folder / f"{program}.log")

    def kill(self, program: str) -> None:
        """SIGKILL a daemon of the control plane."""
        end_inside(self._daemons.pop(program))

    def start_api_server(self) -> None:
        """Begin, or be there again; returns when it answers."""
        pki, address = self.folder / "pki", self.sandbox.address
        self.start(
            "kube-apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            f"--bind-address={address}",
            f"--advertise-address={address}",
            f"--secure-port={_PORT}",
            f"--cert-dir={pki}",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://slipway.test",
            f"--service-account-key-file={pki / 'accounts.key'}",
            f"--service-account-signing-key-file={pki / 'accounts.key'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            "--endpoint-reconciler-type=none",
            "--kubelet-preferred-address-types=InternalIP",
            f"--audit-policy-file={self.folder / 'audit-policy.json'}",
            f"--audit-log-path={self.folder / 'audit.log'}",
        )
        eventually(self._api_answers, f"the API server answers (see {self.folder}/kube-apiserver.log)", 60)

    def _api_answers(self) -> bool:
        try:
            return self.admin.get("/api/v1/namespaces/kube-system") is not None
        except SlipwayError:
            return False

    def audit(self) -> list[Json]:
        """Every request that was answered: its user, verb, resource (``pods/log``) and namespace."""
        entries = []
        for line in (self.folder / "audit.log").read_text().splitlines():
            entry = json.loads(line)
            about = entry.get("objectRef")
            if entry["stage"] == "ResponseComplete" and about is not None:
                parts = [about.get("resource", ""), *([about["subresource"]] if "subresource" in about else [])]
                who, where = entry["user"].get("username"), about.get("namespace")
                entries.append({"user": who, "verb": entry["verb"], "resource": "/".join(parts), "namespace": where})
        return entries

    def set_gpus(self, name: str, count: int) -> None:
        """Give a node so many GPUs, and the labels by which they are known."""
        number = {"nvidia.com/gpu": str(count)}
        status = {"status": {"capacity": number, "allocatable": number}}
        self.admin.merge(f"/api/v1/nodes/{name}/status", status)
        labels = {"nvidia.com/gpu.product": GPU_PRODUCT, "nvidia.com/gpu.memory": str(GPU_MEMORY_MIB)}
        self.admin.merge(f"/api/v1/nodes/{name}", {"metadata": {"labels": labels}})

    def ready(self, name: str) -> bool:
        """Whether the cluster holds a node for ready."""
        node = self.admin.get(f"/api/v1/nodes/{name}") or {}
        conditions = (node.get("status") or {}).get("conditions") or []
        return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)

    def schedulable(self, name: str) -> bool:
        """Whether nothing keeps pods from a node."""
        return not (self.admin.get(f"/api/v1/nodes/{name}") or {}).get("spec", {}).get("taints")


@contextmanager
def running_cluster(images: Sequence[Path]) -> Iterator[Cluster]:
    """Start one whose nodes have ``images``; everything is gone afterwards."""
    programs()
    with tempfile.TemporaryDirectory(prefix="slipway-kubernetes-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        remove_cgroups()
        with running_sandbox() as sandbox:
            cluster = Cluster(sandbox, folder, folder / "admin.kubeconfig")
            _start_control_plane(cluster)
            _start_nodes(cluster, [pause_image(folder), *images])
            _start_controllers(cluster)
            yield cluster
        eventually(lambda: not psutil.pid_exists(sandbox.init_pid), "the sandbox's init is reaped")
        remove_cgroups()


def _start_control_plane(cluster: Cluster) -> None:
    pki = cluster.folder / "pki"
    pki.mkdir()
    _write_key(pki / "accounts.key")
    token = secrets.token_hex(16)
    policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]}
    (cluster.folder / "audit-policy.json").write_text(json.dumps(policy))
    (cluster.folder / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
    cluster.kubeconfig = cluster.kubeconfig_of(token, "admin")
    cluster.start("etcd", f"--data-dir={cluster.folder / 'etcd'}", "--unsafe-no-fsync")
    cluster.start_api_server()


def _start_controllers(cluster: Cluster) -> None:
    """When nodes are ready: 1.20 never evicts from one that it has first seen not ready, alone in its cluster."""
    pki, kubeconfig = cluster.folder / "pki", f"--kubeconfig={cluster.kubeconfig}"
    cluster.start(
        "kube-controller-manager",
        kubeconfig,
        "--bind-address=127.0.0.1",
        "--port=0",
        f"--cert-dir={pki / 'controllers'}",
        f"--service-account-private-key-file={pki / 'accounts.key'}",
        "--leader-elect=false",
        "--node-monitor-period=1s",
        "--node-monitor-grace-period=8s",
        "--controllers=*,-nodeipam,-route,-service,-cloud-node-lifecycle",
    )
    cluster.start(
        "kube-scheduler", kubeconfig, "--bind-address=127.0.0.1", "--port=0", f"--cert-dir={pki / 'scheduler'}",
        "--leader-elect=false",
    )  # fmt: skip
    for node in cluster.nodes:
        eventually(lambda name=node.name: cluster.schedulable(name), f"{node.name} takes pods", 60)


def _write_key(path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.TraditionalOpenSSL, plain))


def _start_nodes(cluster: Cluster, images: Sequence[Path]) -> None:
    offset = int(IPv4Address(cluster.sandbox.address)) - int(_SANDBOXES)
    for number, address in enumerate((_NODES + offset, _NODES + offset + 1), start=1):
        _add_address(cluster.sandbox, str(address))
        node = Node(
            name=f"node-{number}",
            address=str(address),
            sandbox=cluster.sandbox,
            folder=cluster.folder / f"node-{number}",
            kubelet_program=programs() / "kubelet",
            kubeconfig=cluster.kubeconfig,
        )
        cluster.nodes.append(node)
        node.prepare(images)
        node.start_kubelet()
    for node in cluster.nodes:
        eventually(lambda name=node.name: cluster.ready(name), f"{node.name} is ready (see {node.folder})", 90)


def _add_address(sandbox: Sandbox, address: str) -> None:
    """An address inside the sandbox that this machine reaches; the route goes with the sandbox's interface."""
    sandbox.run(["ip", "address", "add", f"{address}/32", "dev", "eth0"])
    subprocess.run(["ip", "route", "add", f"{address}/32", "via", sandbox.address], check=True, timeout=20)


def manifest_path(manifest: Json) -> str:
    """The URL path of the object that ``manifest`` describes."""
    group, kind = manifest["apiVersion"], manifest["kind"].lower()
    prefix = f"/apis/{group}" if "/" in group else f"/api/{group}"
    plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}es" if kind.endswith("s") else f"{kind}s"
    namespace = manifest["metadata"].get("namespace")
    place = f"{prefix}/namespaces/{namespace}" if namespace else prefix
    return f"{place}/{plural}/{manifest['metadata']['name']}"
