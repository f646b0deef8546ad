"""Another engine for an instance that serves: every request before, during and after is answered in full."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from control_plane.accounts import api_keys
from control_plane.app import create_app
from control_plane.clock import SYSTEM_CLOCK
from control_plane.context import Context
from control_plane.hub import local_models
from control_plane.instances import service
from control_plane.instances.reconcile import reconcile, sweep
from control_plane.instances.schemas import InstanceUpdate, InstanceView, LaunchRequest
from control_plane.providers.local import LocalProvider
from tests.support.http import serving
from tests.support.instances import STARTER, Plant
from tests.support.processes import eventually

#: Ends and starts real engines; what the database does is tried elsewhere.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

STREAM = {"model": STARTER, "messages": [{"role": "user", "content": "Hi"}], "stream": True, "max_tokens": 4}
TOKENS = [*(f'data: {{"token": {number}}}' for number in range(4)), "data: [DONE]"]


@pytest.fixture
def local(plant: Plant, engines: LocalProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """The plant with real time and real engines, which drain when they are told to end."""
    folder = shutil.copytree(local_models.folder_of(local_models.ModelId.parse(STARTER)), tmp_path / "starter")
    (folder / "behaviour.json").write_text(json.dumps({"drains": True}))
    monkeypatch.setattr(local_models, "folder_of", lambda _model: folder)
    return replace(plant.context, clock=SYSTEM_CLOCK, providers={"local": engines})


@contextmanager
def worker(context: Context) -> Iterator[None]:
    """A worker and a scheduler: what is due is done."""
    done = threading.Event()

    def work() -> None:
        while not done.wait(0.05):
            for instance_id in sweep(context):
                reconcile(context, instance_id)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def callers(number: int, ask: Callable[[], list[str]]) -> Iterator[list[list[str]]]:
    """So many callers that ask again and again; what they were answered."""
    done, answers = threading.Event(), list[list[str]]()

    def call() -> None:
        while not done.is_set():
            answers.append(ask())

    with ThreadPoolExecutor(number) as pool:
        calls = [pool.submit(call) for _ in range(number)]
        try:
            yield answers
        finally:
            done.set()
        for finished in calls:
            finished.result()


def test_an_engine_is_replaced_under_load(plant: Plant, local: Context, engines: LocalProvider) -> None:
    launched = service.launch(local, plant.principal, LaunchRequest(model=STARTER, hardware="local-cpu"))
    key = api_keys.create(local, plant.principal, name="callers").secret
    with serving(create_app(local)) as url, worker(local), httpx.Client(trust_env=False, timeout=30) as client:

        def ask() -> list[str]:
            path = f"{url}/i/{launched.slug}/v1/chat/completions"
            answer = client.post(path, json=STREAM, headers={"Authorization": f"Bearer {key}"})
            return [str(answer.status_code), *(line for line in answer.text.splitlines() if line)]

        try:
            eventually(lambda: _view(local, plant, launched.id).phase == "running", "it runs", 60)
            (old,) = [status.boot_token for status in engines.list_owned() if launched.id.hex in status.name]
            with callers(3, ask) as answers:
                eventually(lambda: len(answers) >= 3, "they are answered")
                wanted = InstanceUpdate.model_validate({"engine": {"max_model_len": 64}})
                service.update(local, plant.principal, launched.id, wanted)
                eventually(lambda: _is_replaced(_view(local, plant, launched.id)), "the engine is replaced", 60)
                so_far = len(answers)
                eventually(lambda: len(answers) >= so_far + 6, "the new one answers")
            (new,) = [status.boot_token for status in engines.list_owned() if launched.id.hex in status.name]
        finally:
            service.terminate(local, plant.principal, launched.id)
            eventually(lambda: _view(local, plant, launched.id).phase == "terminated", "it is gone", 60)
    assert old != new
    assert [answer for answer in answers if answer != ["200", *TOKENS]] == []


def _view(context: Context, plant: Plant, instance_id: UUID) -> InstanceView:
    return service.get(context, plant.principal, instance_id)


def _is_replaced(instance: InstanceView) -> bool:
    return [(replica.generation, replica.ready) for replica in instance.replicas] == [(1, True)]
