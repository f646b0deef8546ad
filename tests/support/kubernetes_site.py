"""Where the provider's contract is tried: a namespace with the chart's rights, weights on a claim, a tiny engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from control_plane.keys import installation_id
from control_plane.providers.base import ReplicaSpec, Weights
from control_plane.providers.kubernetes import KubernetesProvider
from control_plane.providers.kubernetes_api import manifests
from control_plane.providers.kubernetes_api.client import Json
from control_plane.providers.kubernetes_api.options import ClusterOptions
from control_plane.settings import Settings
from tests.support import tiny_engine
from tests.support.kubernetes_agent import agent_files
from tests.support.kubernetes_cluster import Cluster
from tests.support.kubernetes_image import File, write_image, write_layer
from tests.support.rootfs import rootfs_tar

IMAGE = "localhost/slipway-tiny-engine:1"
COMMIT = "a" * 40
#: Finds a model where the real engine does: in the Hugging Face cache, by its id and revision.
_SERVE = """#!/usr/bin/python3
import os, sys
folders = {"/".join(("models--" + sys.argv[1].replace("/", "--"), "snapshots", a[11:]))
           for a in sys.argv if a.startswith("--revision=")}
model = os.path.join(os.environ["HF_HOME"], "hub", *folders) if folders else sys.argv[1]
rest = [a for a in sys.argv[2:] if not a.startswith("--revision=")]
os.execv("/opt/tiny_engine.py", ["/opt/tiny_engine.py", model, *rest])
"""


def tiny_image(folder: Path) -> Path:
    """An image archive whose ``slipway-serve`` is ``tiny_engine.py``, and whose ``slipway-agent`` is the real one."""
    engine = b"#!/usr/bin/python3\n" + Path(tiny_engine.__file__).read_bytes()
    files = {
        "/opt/tiny_engine.py": File(engine, 0o755),
        "/usr/local/bin/slipway-serve": File(_SERVE.encode(), 0o755),
    }
    layer = write_layer(folder / "engine-layer.tar", files | agent_files())
    configuration = {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "User": "65534"}
    return write_image(folder / "tiny-engine.tar", IMAGE, [rootfs_tar(), layer], configuration)


def volume(name: str, folder: Path, storage_class: str) -> Json:
    """A volume that every node can mount: a folder of this machine."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "capacity": {"storage": "1Ti"},
            "hostPath": {"path": str(folder)},
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": storage_class,
        },
    }


@dataclass
class KubernetesSite:
    """A place in a cluster where replicas run; see ``tests/control_plane/providers/contract.py``."""

    cluster: Cluster
    settings: Settings
    provider: KubernetesProvider
    other_installation: KubernetesProvider
    weights: Path

    def spec(self, name: str, boot_token: str, **behaviour: object) -> ReplicaSpec:
        """A replica whose model, named after it, behaves as asked."""
        model = f"org/{name}"
        folder = self.weights / "hub" / f"models--{model.replace('/', '--')}" / "snapshots" / COMMIT
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "behaviour.json").write_text(json.dumps(behaviour))
        return ReplicaSpec(
            name=name,
            owner=installation_id(self.settings),
            weights=Weights(model, COMMIT, None),
            served_model_name=model,
            hardware_id=manifests.CPU_HARDWARE,
            api_key="key-of-the-replica",
            boot_token=boot_token,
            memory_bytes=64 << 20,
            labels={"instance": "0198c0de", "replica": "0", "note": "people's words, of any alphabet: ß"},
        )

    @contextmanager
    def out_of_reach(self) -> Iterator[None]:
        """Without an API server; kubelets and pods go on."""
        self.cluster.kill("kube-apiserver")
        try:
            yield
        finally:
            self.cluster.start_api_server()


def make_site(cluster: Cluster, folder: Path, *, namespace: str, kubeconfig: Path) -> KubernetesSite:
    """A site in ``namespace``, which is there; the provider comes with ``kubeconfig``'s rights."""

    def settings(secret: str) -> Settings:
        return Settings(
            data_dir=folder / secret,
            secret_key=secret,
            kubernetes_kubeconfig=kubeconfig,
            kubernetes_namespace=namespace,
            kubernetes_serving_image=IMAGE,
            kubernetes_access="host",
            kubernetes_cpus=0.3,
            kubernetes_storage_class=namespace,
            kubernetes_volume_size="1Gi",
            kubernetes_node_loss_s=2,
        )

    ours, theirs = settings("ours"), settings("theirs")
    weights = folder / "weights"
    weights.mkdir()
    folder.chmod(0o755)
    weights.chmod(0o777)
    cluster.apply(volume(f"weights-{namespace}", weights, namespace))
    options = ClusterOptions.from_settings(ours)
    claim = manifests.claim(options)
    claim["metadata"]["namespace"] = namespace
    cluster.apply(claim)
    return KubernetesSite(
        cluster, ours, KubernetesProvider.from_settings(ours), KubernetesProvider.from_settings(theirs), weights
    )
