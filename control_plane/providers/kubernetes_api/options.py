"""What the kubernetes provider is told: where in the cluster it works, and what every replica there has in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from control_plane.keys import installation_id
from control_plane.providers.kubernetes_api.client import Json
from control_plane.settings import Settings

#: Labels by which our objects are found. A label's value has 63 characters at most, of a small alphabet.
OWNER = "slipway.installation"
NAME = "slipway.name"
BOOT = "slipway.boot"
MANAGED_BY = {"app.kubernetes.io/managed-by": "slipway"}
#: Annotations: what the caller labelled a replica with (JSON), that its creation came to its end, and which pod is the
#: one that this boot began with.
LABELS = "slipway.labels"
COMPLETE = "slipway.complete"
POD = "slipway.pod"


@dataclass(frozen=True)
class ClusterOptions:
    """The settings of this provider (``SLIPWAY_KUBERNETES_*``), and whose objects are ours."""

    namespace: str
    owner: str
    image: str
    image_pull_secret: str = ""
    price_per_hour: float = 0.0
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: list[Json] = field(default_factory=list)
    cpus: float = 1.0
    claim: str = ""
    storage_class: str = ""
    volume_size: str = "1Ti"
    access: Literal["service", "host"] = "service"
    bundled_models: str = "/opt/slipway/src"
    node_loss_s: int = 30
    agent_ca: str = ""

    @classmethod
    def from_settings(cls, settings: Settings) -> ClusterOptions:
        """What ``settings`` say."""
        return cls(
            namespace=settings.kubernetes_namespace,
            owner=installation_id(settings),
            image=settings.kubernetes_serving_image,
            image_pull_secret=settings.kubernetes_image_pull_secret,
            price_per_hour=settings.kubernetes_price_per_hour,
            node_selector=settings.kubernetes_node_selector,
            tolerations=settings.kubernetes_tolerations,
            cpus=settings.kubernetes_cpus,
            claim=settings.kubernetes_volume_claim,
            storage_class=settings.kubernetes_storage_class,
            volume_size=settings.kubernetes_volume_size,
            access=settings.kubernetes_access,
            bundled_models=settings.kubernetes_bundled_models,
            node_loss_s=settings.kubernetes_node_loss_s,
            agent_ca=settings.kubernetes_agent_ca,
        )

    @property
    def claim_name(self) -> str:
        """The claim that holds weights: an existing one, or our own."""
        return self.claim or f"slipway-weights-{self.owner}"

    def path(self, group: str, kind: str, name: str = "") -> str:
        """The URL path of a collection in our namespace (``group`` as in ``apis/apps/v1``), or of one object there."""
        collection = f"/{group}/namespaces/{self.namespace}/{kind}"
        return f"{collection}/{name}" if name else collection

    def pods(self, name: str = "") -> str:
        """The URL path of our namespace's pods, or of one."""
        return self.path("api/v1", "pods", name)

    def statefulsets(self, name: str = "") -> str:
        """The URL path of replicas."""
        return self.path("apis/apps/v1", "statefulsets", name)

    def jobs(self, name: str = "") -> str:
        """The URL path of download agents."""
        return self.path("apis/batch/v1", "jobs", name)
