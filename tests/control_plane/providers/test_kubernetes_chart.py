"""The Helm chart without Helm: what can go out of step with the code. ``tests/kubernetes`` renders and installs it."""

from __future__ import annotations

import re
from pathlib import Path

import typer.main
import yaml

from control_plane.cli import app
from control_plane.providers.kubernetes_api.options import ClusterOptions
from control_plane.settings import Settings

CHART = Path(__file__).parents[3] / "docker" / "helm" / "slipway"
TEMPLATES = {path.name: path.read_text() for path in (CHART / "templates").iterdir()}


def test_every_variable_that_the_chart_sets_is_a_setting() -> None:
    named = {name.lower() for name in re.findall(r"SLIPWAY_([A-Z_]+)", TEMPLATES["_helpers.tpl"])}
    assert named <= set(Settings.model_fields)
    ours = {name for name in Settings.model_fields if name.startswith("kubernetes_")}
    # Outside the cluster, or right for the image that the chart runs.
    left_out = {f"kubernetes_{name}" for name in ("kubeconfig", "access", "cpus", "node_loss_s", "bundled_models")}
    assert ours - named == left_out
    assert len(ours) == len(ClusterOptions.__dataclass_fields__)  # the owner tag there, the kubeconfig here


def test_every_role_is_a_command_that_there_is() -> None:
    given = {name: re.search(r'list "([a-z]+)"', text) for name, text in TEMPLATES.items()}
    commands = {match[1] for match in given.values() if match}
    assert commands == {"web", "gateway", "worker", "beat", "migrate"}
    assert commands <= set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_every_value_that_a_template_reads_has_a_default() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for text in TEMPLATES.values():
        for path in re.findall(r"\.Values\.([A-Za-z.]+)", text):
            value = values
            for key in path.split("."):
                assert key in value, f"values.yaml has no {path}"
                value = value[key]


def test_rights_are_named_one_by_one() -> None:
    rules = TEMPLATES["rbac.yaml"]
    assert "*" not in rules
    assert re.search(r"\[services, secrets\]\n +verbs: \[create, patch\]\n", rules), "written, never read"
