"""The Helm chart, rendered and installed into a test cluster."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from control_plane.providers.kubernetes_api.client import Json
from tests.support.kubernetes_cluster import Cluster, programs

CHART = Path(__file__).parents[2] / "docker" / "helm" / "slipway"


def render(folder: Path, *, namespace: str, release: str = "slipway", **values: Any) -> list[Json]:
    """The chart's objects; the renderer is ours (``tests/kubernetes/helm_render``), the chart is plain Helm 3.

    :raises RuntimeError: a template fails; carries what it said.
    """
    path = folder / "values.json"
    path.write_text(json.dumps(values))
    argv = [str(programs() / "helm-render"), str(CHART), release, namespace, str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def install(cluster: Cluster, manifests: list[Json]) -> None:
    """Apply what was rendered, its hooks first, as Helm does."""
    order = ["ServiceAccount", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"]
    ranked = sorted(manifests, key=lambda m: order.index(m["kind"]) if m["kind"] in order else len(order))
    for manifest in ranked:
        cluster.apply(manifest)
