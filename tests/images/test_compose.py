"""The compose file, brought up whole: over TLS from the one-time link to an answer, and nothing is left."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from tests.support.compose import Compose, compose_up
from tests.support.images import build_file, copy
from tests.support.podman import Podman, running_podman
from tests.support.processes import eventually

#: What compose.yaml pulls elsewhere, made here of Debian's packages: no registry is needed.
STAND_INS = {
    "postgres": "docker.io/library/postgres:17",
    "redis": "docker.io/library/redis:7",
    "caddy": "docker.io/library/caddy:2",
}


@pytest.fixture
def compose(builder: Podman, serving_image: str, control_plane_image: str, tmp_path: Path) -> Iterator[Compose]:
    stand_ins = Path(__file__).parent / "stand_ins"
    images = {"localhost/slipway:latest": control_plane_image, "localhost/slipway-serve:latest": serving_image}
    images |= {name: build_file(builder, stand_ins / f"{what}.Dockerfile", name) for what, name in STAND_INS.items()}
    with running_podman() as podman:
        for name, built in images.items():
            copy(builder, podman, built)
            podman.run("tag", built, name)
        with compose_up(podman, tmp_path) as compose:
            yield compose


def test_from_the_link_to_an_answer(compose: Compose) -> None:
    client = compose.client
    printed = compose.run("run", "--rm", "-T", "web", "setup-link")
    token = re.search(r"https://localhost/setup\?token=([\w.~-]+)", printed)
    assert token, printed
    person = {"token": token[1], "email": "ada@example.org", "name": "Ada", "password": "correct horse battery"}
    made = client.post("/api/v1/setup", json=person)
    assert made.status_code == 201, made.text
    client.headers["X-CSRF-Token"] = made.json()["csrf_token"]
    key = client.post("/api/v1/keys", json={"name": "test"})
    assert key.status_code == 201, key.text

    body = {"model": "slipway/starter", "name": "starter", "hardware": "docker-cpu"}
    launched = client.post("/api/v1/instances", json=body)
    assert launched.status_code == 202, launched.text
    path = f"/api/v1/instances/{launched.json()['id']}"
    said: list[str] = []

    def phase_is(phase: str) -> bool:
        now = client.get(path).json()
        said.append(f"{now['phase']}: {now['reason']}")
        assert now["phase"] != "failed", said[-1]
        return bool(now["phase"] == phase)

    eventually(lambda: phase_is("running"), f"it runs ({said[-3:]})", 180)
    api = OpenAI(
        base_url=client.get(path).json()["api_url"], api_key=key.json()["key"], max_retries=0, http_client=client
    )
    question = [{"role": "user", "content": "Hello"}]
    answer = api.chat.completions.create(model="slipway/starter", messages=question, max_tokens=8)
    assert answer.choices[0].message.content
    assert "slipway-serve" in compose.podman.run("ps", "--format", "{{.Image}}")

    assert client.delete(path).status_code in {200, 202, 204}
    eventually(lambda: phase_is("terminated"), f"it is gone ({said[-3:]})", 60)
    assert "slipway-serve" not in compose.podman.run("ps", "--format", "{{.Image}}")
