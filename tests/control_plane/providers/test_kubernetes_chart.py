"""The Helm chart, by Helm itself: what can go out of step with the code. ``tests/kubernetes`` installs it."""

from __future__ import annotations

from typing import Any

import pytest
import typer.main

from control_plane.cli import app
from control_plane.providers.kubernetes_api.client import Json
from control_plane.providers.kubernetes_api.options import ClusterOptions
from control_plane.settings import Settings
from tests.support.helm import lint, render

URL = "https://models.slipway.test"


@pytest.fixture(scope="module")
def chart() -> list[Json]:
    return render(publicUrl=URL)


def pods(chart: list[Json]) -> dict[str, Any]:
    """The pods' specifications by role."""
    return {
        manifest["metadata"]["labels"]["app.kubernetes.io/component"]: manifest["spec"]["template"]["spec"]
        for manifest in chart
        if manifest["kind"] in ("Deployment", "Job")
    }


def test_helm_has_nothing_against_it() -> None:
    assert "0 chart(s) failed" in lint(publicUrl=URL, ingress={"enabled": True, "tlsSecretName": "tls"})


def test_without_an_address_it_says_what_is_missing() -> None:
    with pytest.raises(RuntimeError, match="publicUrl must say where people reach Slipway"):
        render()


def test_every_variable_that_it_sets_is_a_setting(chart: list[Json]) -> None:
    settings = set(Settings.model_fields)
    for pod in pods(chart).values():
        variables = {variable["name"] for variable in pod["containers"][0]["env"]}
        named = {name.removeprefix("SLIPWAY_").lower() for name in variables if name.startswith("SLIPWAY_")}
        assert named <= settings
        ours = {name for name in settings if name.startswith("kubernetes_")}
        # Outside the cluster, or right for the image that the chart runs.
        left_out = {f"kubernetes_{name}" for name in ("kubeconfig", "access", "cpus", "node_loss_s", "bundled_models")}
        assert ours - named == left_out
        assert len(ours) == len(ClusterOptions.__dataclass_fields__)  # the owner tag there, the kubeconfig here


def test_every_role_runs_a_command_that_there_is_as_nobody(chart: list[Json]) -> None:
    roles = pods(chart)
    commands = {role: pod["containers"][0]["args"][0] for role, pod in roles.items()}
    assert commands == {
        "web": "web", "gateway": "gateway", "worker": "worker", "scheduler": "beat", "migrate": "migrate",
    }  # fmt: skip
    assert set(commands.values()) <= set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    for pod in roles.values():
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"]
    with_rights = {role for role, pod in roles.items() if pod["automountServiceAccountToken"]}
    assert with_rights == {"web", "worker"}


def test_rights_are_named_one_by_one(chart: list[Json]) -> None:
    rules = [rule for manifest in chart if manifest["kind"] in ("Role", "ClusterRole") for rule in manifest["rules"]]
    assert not [rule for rule in rules if "*" in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]]
    (secrets,) = [rule for rule in rules if "secrets" in rule["resources"]]
    assert set(secrets["verbs"]) == {"create", "patch"}, "written, never read"
    everywhere = [rule for m in render(publicUrl=URL, rbac={"seeAllPods": True}) for rule in m.get("rules", [])]
    assert everywhere.count({"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}) == 1, "only when asked"


def test_values_reach_the_pods() -> None:
    tolerations = [{"key": "gpu", "operator": "Exists"}]
    chart = render(
        release="lab",
        namespace="models",
        publicUrl=URL,
        image={"repository": "registry.test/slipway", "tag": "2"},
        replicas={"namespace": "engines", "nodeSelector": {"pool": "gpu"}, "tolerations": tolerations},
        ingress={"enabled": True, "host": "models.slipway.test", "className": "nginx", "tlsSecretName": "tls"},
    )
    container = pods(chart)["worker"]["containers"][0]
    environment = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert container["image"] == "registry.test/slipway:2"
    assert environment["SLIPWAY_KUBERNETES_NAMESPACE"] == "engines"
    assert environment["SLIPWAY_KUBERNETES_NODE_SELECTOR"] == '{"pool":"gpu"}'
    (role,) = [manifest for manifest in chart if manifest["kind"] == "Role"]
    assert (role["metadata"]["name"], role["metadata"]["namespace"]) == ("lab-replicas", "engines")
    (ingress,) = [manifest for manifest in chart if manifest["kind"] == "Ingress"]
    paths = {path["path"]: path["backend"]["service"]["name"] for path in ingress["spec"]["rules"][0]["http"]["paths"]}
    assert paths == {"/i/": "lab-gateway", "/v1/": "lab-gateway", "/": "lab-web"}
