"""REST of models, with the local hub behind it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from control_plane.accounts import endpoints as accounts
from control_plane.catalog import endpoints
from control_plane.catalog.catalog import get_catalog
from control_plane.context import Context
from control_plane.problems import install_error_handlers
from control_plane.providers.base import HardwareOffer
from control_plane.sizing.machines import MACHINES
from tests.hub import HubServer, models
from tests.support.accounts import admin, browser, context

__all__ = ["admin", "browser", "context"]


@pytest.fixture
def database_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    """One database is enough here: models have no rows, only the caller's key does."""
    shutil.copy(migrated_sqlite, tmp_path / "test.db")
    return f"sqlite:///{tmp_path / 'test.db'}"


class OneOffer:
    """A provider with one machine of 8 GiB and a price."""

    name = "shop"

    def offers(self) -> list[HardwareOffer]:
        return [HardwareOffer("shop-small", "shop", "Small", "cpu", 0, 8 << 30, 0.25, True)]


@pytest.fixture
def app(context: Context, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    app = FastAPI()
    app.state.context = replace(context, providers={"shop": OneOffer()})
    install_error_handlers(app)
    app.include_router(accounts.router)
    app.include_router(endpoints.router)
    return app


@pytest.fixture
def published(hub: HubServer, tmp_path: Path) -> None:
    """org/tiny, and org/gated to which nobody has access."""
    folder = models.tiny_llama(tmp_path / "tiny")
    hub.add_repo("org/tiny", folder)
    hub.add_repo("org/gated", folder, gated="manual")


def resolve(client: TestClient, **body: Any) -> Any:
    return client.post("/models/resolve", json=body)


def test_models_need_a_caller(app: FastAPI) -> None:
    anonymous = TestClient(app)
    assert anonymous.get("/models").status_code == 401
    assert anonymous.get("/models/Qwen/Qwen3-8B").status_code == 401
    assert resolve(anonymous, model="org/tiny").status_code == 401


def test_the_catalog_is_listed_searched_and_paged(admin: TestClient) -> None:
    everything = admin.get("/models").json()
    assert everything["next_cursor"] is None
    assert everything["items"][0]["id"] == "slipway/starter"
    assert len(everything["items"]) == len(get_catalog().entries)

    found = admin.get("/models", params={"q": "qwen3", "max_parameters": 5_000_000_000, "gated": "false"}).json()
    assert {item["family"] for item in found["items"]} == {"Qwen"}
    assert all(item["supported"] and item["why_not"] is None for item in found["items"])
    small = next(item for item in found["items"] if item["id"] == "Qwen/Qwen3-0.6B")
    assert (small["kind"], small["weight_bytes"]) == ("chat", 2 * small["parameters"])
    assert small["hardware"] in {machine.name for machine in MACHINES}
    assert {"id": "Qwen/Qwen3-0.6B-FP8", "method": "fp8"} in small["quantized"]
    assert "gated" in small["unchecked"]

    paged: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = admin.get("/models", params={"limit": 40, **cursor}).json()
        paged += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert paged == [item["id"] for item in everything["items"]]


@pytest.mark.parametrize("query", ["limit=0", "max_parameters=many", "cursor=org/none", "licence=mit", "gated=perhaps"])
def test_a_wrong_query_is_refused_by_name(admin: TestClient, query: str) -> None:
    response = admin.get(f"/models?{query}")
    assert response.status_code == 422
    assert query.partition("=")[0] in response.json()["detail"]


def test_one_entry(admin: TestClient) -> None:
    assert admin.get("/models/Qwen/Qwen3-8B").json()["name"] == "Qwen3 8B"
    missing = admin.get("/models/org/none")
    assert (missing.status_code, missing.json()["code"]) == (404, "model_not_in_catalog")
    assert "resolve" in missing.json()["next_step"]


def test_resolve_tells_facts_and_fits(admin: TestClient, hub: HubServer, tmp_path: Path) -> None:
    folder = models.tiny_llama(tmp_path / "tiny", shards=2)
    (folder / "pytorch_model.bin").write_bytes(b"\0" * 5000)
    sha = hub.add_repo("org/tiny", folder)

    found = resolve(admin, model="org/tiny", max_model_len=256, concurrency=3).json()

    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    described = sum(path.stat().st_size for path in folder.glob("*.json"))
    assert (found["model"], found["revision"], found["commit_sha"]) == ("org/tiny", "main", sha)
    assert (found["architecture"], found["license"], found["gated"]) == ("LlamaForCausalLM", "apache-2.0", False)
    assert (found["weight_bytes"], found["total_bytes"], found["context"]) == (weights, weights + described, 512)
    assert (found["supported"], found["why_not"]) == (True, None)
    (fit,) = found["fits"]
    assert (fit["hardware"], fit["price_per_hour"], fit["fits"], fit["max_model_len"]) == (
        "shop-small",
        0.25,
        True,
        256,
    )
    # 2 × 2 layers × 2 heads × 16 × 4 bytes a token, in blocks of 128 tokens, for three requests.
    assert fit["memory"]["kv_cache"] == 3 * 256 * 512
    assert fit["memory"]["total"] == sum(
        fit["memory"][part] for part in ("weights", "kv_cache", "activations", "overhead")
    )
    assert fit["max_sequences"] == 64


def test_resolve_is_honest_about_what_is_not_served(admin: TestClient, hub: HubServer, tmp_path: Path) -> None:
    hub.add_repo("org/other", models.unsupported_model(tmp_path / "other"))
    found = resolve(admin, model="org/other").json()
    assert found["supported"] is False
    assert "RwkvForCausalLM is a state-space or recurrent model" in found["why_not"]
    assert not hub.requests_for("*.safetensors")

    fallback = models.tiny_llama(tmp_path / "fallback", architectures=["Glm4MoeForCausalLM"], model_type="glm4_moe")
    hub.add_repo("org/fallback", fallback)
    found = resolve(admin, model="org/fallback").json()
    assert (found["supported"], found["why_not"]) == (True, None)
    assert "through Transformers" in found["note"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "../etc/passwd"}, 422, "invalid_model_id"),
        ({"model": "org/none"}, 404, "repository_not_found"),
        ({"model": "org/tiny", "revision": "v9"}, 404, "revision_not_found"),
        ({"model": "org/tiny", "revision": "../x"}, 422, "invalid_revision"),
        ({"model": "org/gated"}, 403, "gated_repository"),
        ({"model": "org/tiny", "concurrency": 0}, 422, "invalid"),
        ({"model": "org/tiny", "surprise": 1}, 422, "invalid"),
        ({}, 422, "invalid"),
    ],
)
def test_errors_are_problems_with_a_next_step(
    admin: TestClient, published: None, body: dict[str, Any], status: int, code: str
) -> None:
    response = resolve(admin, **body)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert response.json()["code"] == code
    assert response.json()["next_step"]


def test_a_dead_hub_is_a_503(admin: TestClient, hub: HubServer) -> None:
    with hub.dead():
        response = resolve(admin, model="org/tiny")
    assert (response.status_code, response.json()["code"]) == (503, "hub_unreachable")
