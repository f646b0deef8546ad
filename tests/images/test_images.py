"""The images: built from nothing, of a bounded size, unprivileged; and one that a provider runs answers a chat."""

from __future__ import annotations

import time
from pathlib import Path
from uuid import UUID

from openai import OpenAI

from control_plane.accounts import api_keys
from control_plane.app import create_app
from control_plane.clock import SYSTEM_CLOCK
from control_plane.context import Context
from control_plane.database import Database
from control_plane.instances import repository, service
from control_plane.instances.reconcile import reconcile
from control_plane.instances.schemas import LaunchRequest
from control_plane.migrate import upgrade
from control_plane.providers.docker import DockerProvider
from control_plane.settings import Settings
from tests.support.http import serving
from tests.support.images import copy, inspect
from tests.support.instances import add_principal
from tests.support.podman import Podman, running_podman

GB = 1000**3


def inside(podman: Podman, image: str, script: str) -> str:
    """What a shell in the image says, with a read-only root and no rights."""
    limits = ["--read-only", "--cap-drop=ALL", "--network=none"]
    return podman.run("run", "--rm", *limits, "--entrypoint", "/bin/sh", image, "-c", script)


def test_the_serving_image_is_small_and_unprivileged(builder: Podman, serving_image: str) -> None:
    found = inspect(builder, serving_image)
    print(f"\n{serving_image}: {found['Size'] / GB:.2f} GB")
    assert found["Size"] <= 1.5 * GB
    assert found["Config"]["User"] == "10001:10001"
    assert found["Config"]["Entrypoint"] == ["slipway-serve"]
    assert "/health" in str(found["Healthcheck"]["Test"])
    said = inside(
        builder,
        serving_image,
        "id -u; slipway-serve --help | head -1; slipway-agent --help | head -1; ls /opt/slipway/src/starter/model/;"
        " command -v g++ pip || echo no tools; python3 -c 'import celery' 2>&1 | tail -1",
    )
    for expected in ("10001", "usage: slipway-serve", "usage: slipway-agent", "config.json", "no tools", "No module"):
        assert expected in said


def test_the_control_plane_image_has_every_role_and_no_model_library(builder: Podman, control_plane_image: str) -> None:
    found = inspect(builder, control_plane_image)
    print(f"\n{control_plane_image}: {found['Size'] / GB:.2f} GB")
    assert found["Size"] <= 0.6 * GB
    assert found["Config"]["User"] == "10001:10001"
    said = inside(
        builder,
        control_plane_image,
        "for role in web gateway worker beat migrate setup-link; do slipway $role --help | grep Usage; done;"
        " python3 -c 'import torch' 2>&1 | tail -1; python3 -c 'import web.app; print(\"pages are there\")'",
    )
    for expected in ("slipway web", "slipway gateway", "slipway beat", "No module named 'torch'", "pages are there"):
        assert expected in said


def test_the_docker_provider_runs_it_and_it_answers_a_chat(builder: Podman, serving_image: str, tmp_path: Path) -> None:
    with running_podman() as podman:
        copy(builder, podman, serving_image)
        settings = Settings(
            data_dir=tmp_path / "data",
            docker_host=podman.docker_host,
            docker_publish_address=podman.publish_address,
            docker_serving_image=serving_image,
        )
        upgrade(settings.database_url)
        database, provider = Database(settings.database_url), DockerProvider.from_settings(settings)
        context = Context(settings, database, SYSTEM_CLOCK, {"docker": provider}, lambda _task, _row: None)
        principal = add_principal(context, "ada")
        key = api_keys.create(context, principal, name="test").secret
        request = LaunchRequest(model="slipway/starter", name="starter", hardware="docker-cpu")
        instance = service.launch(context, principal, request)
        drive(context, instance.id, "running")
        with serving(create_app(context)) as url:
            client = OpenAI(base_url=f"{url}/i/{instance.slug}/v1", api_key=key, max_retries=0)
            question = [{"role": "user", "content": "Hello"}]
            answer = client.chat.completions.create(model=instance.model, messages=question, max_tokens=8)
        assert answer.choices[0].message.content
        assert answer.usage.completion_tokens > 0
        service.terminate(context, principal, instance.id)
        drive(context, instance.id, "terminated")
        assert provider.list_owned() == []


def drive(context: Context, instance_id: UUID, phase: str, within_s: float = 120) -> None:
    """Do what workers do until the instance is in ``phase``."""
    deadline = time.monotonic() + within_s
    while True:
        with context.database.reading() as session:
            row = repository.fresh(session, instance_id)
        if row.phase == phase:
            return
        assert row.phase != "failed", row.reason
        assert time.monotonic() < deadline, f"{row.phase}: {row.reason}"
        reconcile(context, instance_id)
        time.sleep(0.1)
