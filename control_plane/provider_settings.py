"""What each provider can be told, as fields of :class:`control_plane.settings.Settings`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from control_plane.providers.ssh_host.settings import SshHost


class LocalSettings(BaseModel):
    """Processes of this machine."""

    #: US dollars per hour that one local machine costs; shown on the launch page and charged to instances.
    local_price_per_hour: float = Field(default=0.0, ge=0)


class FakeSettings(BaseModel):
    """An imaginary place."""

    #: Where the imaginary place of the ``fake`` provider answers (``python -m control_plane.providers.fake.server``).
    fake_url: str = ""


class DockerSettings(BaseModel):
    """Containers of Docker or Podman."""

    #: Docker's or Podman's API: unix:///path/of/socket, or tcp://host:port with TLS.
    docker_host: str = "unix:///var/run/docker.sock"
    #: The folder with ca.pem, cert.pem and key.pem for TLS, as Docker's own client has them.
    docker_cert_path: Path | None = None
    #: The image that replicas run; its entry point slipway-serve is on the PATH.
    docker_serving_image: str = "slipway/serving-image:latest"
    #: Where the serving image has the models that come with Slipway: NAME/model in this folder.
    docker_bundled_models: str = "/opt/slipway/src"
    #: The user and group that engines run as: two numbers.
    docker_user: str = "10001:10001"
    #: The Docker host's address at which replicas are reached; the default is where its API is, loopback for a socket.
    docker_publish_address: str = ""
    #: A network that replicas join; none means one of our own, in which they cannot reach each other.
    docker_network: str = ""
    #: The OCI runtime of replicas; none means Docker's default.
    docker_runtime: str = ""
    #: Processors and memory that a replica may use where its launch does not say; none means no limit.
    docker_cpus: float | None = Field(default=None, gt=0)
    docker_memory_bytes: int | None = Field(default=None, ge=64 << 20)
    #: US dollars per hour of one GPU, or of the Docker host's processors.
    docker_price_per_hour: float = Field(default=0.0, ge=0)
    #: The GPUs of a Docker host that is another machine, as JSON: [{"id": "0", "name": "…", "memory_bytes": …}].
    docker_gpus: list[dict[str, Any]] = []


class SlurmSettings(BaseModel):
    """Jobs of a Slurm cluster."""

    #: Where slurmrestd listens; without it there is no slurm provider.
    slurm_url: str = ""
    #: The user that jobs run as; the default is the one that Slipway runs as, and only root can name another.
    slurm_user: str = ""
    #: A file with a token of that user, which somebody renews; or the cluster's key, from which tokens are made.
    slurm_token_file: Path | None = None
    slurm_jwt_key_file: Path | None = None
    #: The default is the cluster's own default partition.
    slurm_partition: str = ""
    #: Seconds after which Slurm ends a job; the default is the partition's own.
    slurm_time_limit_s: float | None = Field(default=None, gt=0)
    #: US dollars per hour of one GPU by its type in Slurm, and of a machine under "cpu"; in the environment as JSON.
    slurm_price_per_hour: dict[str, float] = {}
    #: Memory of one GPU in GiB by its type, where the type does not say it: Slurm does not know it. As JSON, too.
    slurm_gpu_memory_gib: dict[str, float] = {}
    #: slipway-serve on the nodes: a path, or a name to look up in their PATH.
    slurm_engine: str = "slipway-serve"
    #: A folder that this machine and the nodes see under one path; the default is in the data folder.
    slurm_shared_dir: Path | None = None
    #: Processors of a replica whose launch says nothing.
    slurm_cpus: int = Field(default=4, ge=1)
    #: Whether Slurm itself runs a job again whose node failed or that was preempted; else Slipway replaces it.
    slurm_requeue: bool = False


class KubernetesSettings(BaseModel):
    """Workloads of a Kubernetes cluster."""

    #: A kubeconfig file; none means that this process runs inside the cluster.
    kubernetes_kubeconfig: Path | None = None
    kubernetes_namespace: str = "slipway"
    #: The image that replicas and download agents run; its entry points are slipway-serve and slipway-agent.
    kubernetes_serving_image: str = "slipway/serving-image:latest"
    #: Name of the Secret with which nodes pull that image, where its registry wants one.
    kubernetes_image_pull_secret: str = ""
    #: US dollars per hour of one GPU, or of a node's processors.
    kubernetes_price_per_hour: float = Field(default=0.0, ge=0)
    #: Labels that a node must have; in the environment as JSON.
    kubernetes_node_selector: dict[str, str] = {}
    #: Tolerations of replicas, as Kubernetes writes them; that of nvidia.com/gpu is implied.
    kubernetes_tolerations: list[dict[str, Any]] = []
    #: Processors that a replica asks for where its launch does not say.
    kubernetes_cpus: float = Field(default=1.0, gt=0)
    #: An existing claim for weights; none means one of our own, of this class and size, which many nodes can mount.
    kubernetes_volume_claim: str = ""
    kubernetes_storage_class: str = ""
    kubernetes_volume_size: str = "1Ti"
    #: How this process reaches replicas: by their Service, inside the cluster, or at their nodes' addresses.
    kubernetes_access: Literal["service", "host"] = "service"
    #: Where the serving image has the models that come with Slipway: NAME/model in this folder.
    kubernetes_bundled_models: str = "/opt/slipway/src"
    #: Seconds that a node may be silent before its replicas are given up.
    kubernetes_node_loss_s: int = Field(default=30, ge=0)
    #: A ConfigMap with ca.crt, which agents trust where SLIPWAY_AGENT_URL has a certificate of your own authority.
    kubernetes_agent_ca: str = ""


class SshSettings(BaseModel):
    """Machines reached by SSH."""

    #: Machines: [[ssh_hosts]] tables, or JSON in the environment.
    ssh_hosts: list[SshHost] = []


class ProviderSettings(LocalSettings, FakeSettings, DockerSettings, SlurmSettings, KubernetesSettings, SshSettings):
    """All of them. In the environment lists and tables are JSON; in ``slipway.toml`` they are TOML's own."""
