"""The whole web application over a fresh database, and a browser without script."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx import Response

from control_plane.accounts import service as accounts
from control_plane.accounts.cookies import SESSION_COOKIE
from control_plane.context import Context
from control_plane.database import Database
from control_plane.downloads.tables import Download, DownloadFile
from control_plane.ids import new_id
from control_plane.instances.tables import Instance
from control_plane.providers.base import HardwareOffer, ReplicaState, ReplicaStatus
from control_plane.reaper.tables import Orphan, ProviderCheck
from control_plane.settings import Settings
from tests.hub.server import HubServer
from tests.support.clock import FakeClock
from tests.web.html import Element, read
from web.app import create_app

EMAIL, PASSWORD = "ada@example.org", "correct horse battery"
GIB = 1 << 30
BOOT = "the boot that this machine knows"


class Machine:
    """A provider for pages: one machine with room, one without, and a log."""

    name = "local"

    def offers(self) -> list[HardwareOffer]:
        return [
            HardwareOffer("local-cpu", "local", "This machine", "cpu", 0, 16 * GIB, 0.25, available=True, cpu_count=4),
            HardwareOffer("local-tiny", "local", "Tiny machine", "cpu", 0, GIB // 8, 0.01, available=True),
        ]

    def find(self, name: str) -> ReplicaStatus:
        return ReplicaStatus(name, ReplicaState.RUNNING, BOOT, "http://engine.invalid")

    def follow_logs(self, _name: str, *, offset: int) -> Iterator[tuple[int, str]]:
        text = "<b>loading</b> weights\n"
        if offset < len(text):
            yield len(text), text[max(offset, 0) :]


class Browser:
    """A signed-in visitor; ``read_page`` follows redirects and parses what comes."""

    def __init__(self, client: TestClient, context: Context) -> None:
        self.client = client
        self.context = context

    def get(self, path: str, **arguments: Any) -> Response:
        return self.client.get(path, **arguments)

    def read_page(self, path: str, status: int = 200) -> Element:
        response = self.get(path)
        assert response.status_code == status, response.text
        return read(response.text)

    def send(self, form: Element, **typed: str) -> Response:
        """Submit a form as it stands on the page, with some fields typed over."""
        return self.client.post(form["action"], data=form.fields() | typed)


@pytest.fixture
def local_hub(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are looked up on the local hub, as nobody in particular."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture
def context(database: Database, database_url: str, clock: FakeClock, tmp_path: Path, local_hub: None) -> Context:
    """What the services get."""
    settings = Settings(data_dir=tmp_path / "data", database_url=database_url, secret_key="the root secret of a test")
    return Context(settings, database, clock, {"local": Machine()}, hint=lambda *_: None)  # type: ignore[dict-item]


@pytest.fixture
def app(context: Context) -> FastAPI:
    """The application that ``slipway up`` serves."""
    return create_app(context)


@pytest.fixture
def stranger(app: FastAPI) -> Iterator[TestClient]:
    """A browser that has not signed in."""
    with TestClient(app) as client:
        yield client


@pytest.fixture
def setup_token(context: Context) -> str:
    """What ``slipway up`` prints in its link."""
    token = accounts.bootstrap(context).setup_token
    assert token is not None
    return token


@pytest.fixture
def browser(stranger: TestClient, context: Context, setup_token: str) -> Browser:
    """The first administrator, signed in. (What the pages in front of that do is the matter of test_sign_in.py.)"""
    signed_in = accounts.set_up(context, token=setup_token, email=EMAIL, name="Ada", password=PASSWORD)
    stranger.cookies.set(SESSION_COOKIE, signed_in.token)
    return Browser(stranger, context)


@pytest.fixture
def add_instance(context: Context, browser: Browser) -> Callable[..., Instance]:
    """Puts an instance of the administrator's team into the database, in any state."""
    me = browser.get("/api/v1/me").json()

    def add(name: str = "llama", *, files: dict[str, tuple[int, int]] | None = None, **columns: Any) -> Instance:
        """``files``: path → bytes done and bytes in all, of a download that the instance waits for."""
        now = context.clock.now()
        defaults: dict[str, Any] = {
            "team_id": me["team"]["id"],
            "created_by": me["user_id"],
            "name": name,
            "slug": name.lower().replace(" ", "-"),
            "model": "org/model",
            "hardware": "local-cpu",
            "provider": "local",
            "phase": "running",
            "reason": "1 replica answers",
            "since": now - timedelta(seconds=75),
            "created_at": now - timedelta(minutes=5),
        }
        with context.database.transaction() as session:
            instance = Instance.model_validate(defaults | columns)
            if files:
                download = _download(context, files)
                session.add(download)
                session.flush()
                for path, (done, total) in files.items():
                    session.add(
                        DownloadFile(download_id=download.id, path=path, etag=path, bytes_done=done, bytes_total=total)
                    )
                instance.download_id = download.id
            session.add(instance)
        return instance

    return add


@pytest.fixture
def add_orphan(context: Context) -> Callable[..., Orphan]:
    """Puts something that no row wants into the database, as the reaper would."""

    def add(name: str | None = None, **columns: Any) -> Orphan:
        now = context.clock.now()
        defaults: dict[str, Any] = {
            "provider": "local",
            "name": name or f"slipway-{new_id().hex}-0",
            "boot_token": BOOT,
            "state": "unknown",
            "reason": "no row knows its instance",
            "first_seen_at": now,
            "last_seen_at": now,
        }
        with context.database.transaction() as session:
            orphan = Orphan.model_validate(defaults | columns)
            session.add(orphan)
        return orphan

    return add


@pytest.fixture
def add_check(context: Context) -> Callable[..., None]:
    """Notes that a provider was checked, as the reaper would."""

    def add(provider: str = "local", **columns: Any) -> None:
        now = context.clock.now()
        defaults = {"provider": provider, "last_listed_at": now, "next_attempt_at": now}
        with context.database.transaction() as session:
            session.add(ProviderCheck.model_validate(defaults | columns))

    return add


@pytest.fixture
def doubt(context: Context, add_check: Callable[..., None]) -> None:
    """Too much of the machine looks gone at once."""
    add_check(brake_since=context.clock.now(), brake_reason="5 of 8 replicas of local look gone at once")


def _download(context: Context, files: dict[str, tuple[int, int]]) -> Download:
    now = context.clock.now()
    return Download(
        endpoint="http://hub",
        model="org/model",
        commit_sha="a" * 40,
        state="downloading",
        bytes_done=sum(done for done, _ in files.values()),
        bytes_total=sum(total for _, total in files.values()),
        bytes_per_s=2_000_000,
        progress_at=now,
        created_at=now,
        queued_at=now,
        started_at=now,
    )
