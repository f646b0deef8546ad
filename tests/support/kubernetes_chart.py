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
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    context = {
        "Values": _merged(yaml.safe_load((CHART / "values.yaml").read_text()), values),
        "Release": {"Name": release, "Namespace": namespace, "Service": "Helm"},
        "Chart": {"Name": about["name"], "Version": about["version"], "AppVersion": about["appVersion"]},
    }
    path = folder / "context.json"
    path.write_text(json.dumps(context))
    argv = [str(programs() / "helm-render"), str(CHART), str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def _merged(base: Json, over: Json) -> Json:
    """``over`` laid onto ``base``, key by key, as Helm merges values."""
    both = {
        key: _merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
        for key, value in over.items()
    }
    return base | both


def install(cluster: Cluster, manifests: list[Json]) -> None:
    """Apply what was rendered, its hooks first, as Helm does."""
    order = ["ServiceAccount", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"]
    ranked = sorted(manifests, key=lambda m: order.index(m["kind"]) if m["kind"] in order else len(order))
    for manifest in ranked:
        cluster.apply(manifest)
