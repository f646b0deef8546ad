"""The accounts and audit API over a fresh database, with a clock that stands still."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pytest
from fastapi import FastAPI, Form
from fastapi.testclient import TestClient

from control_plane.accounts import endpoints as accounts
from control_plane.accounts import passwords, repository, service
from control_plane.accounts.dependencies import PrincipalDep
from control_plane.accounts.tables import Membership, Team, User
from control_plane.audit import endpoints as audit
from control_plane.context import Context
from control_plane.database import Database
from control_plane.problems import install_error_handlers
from control_plane.settings import Settings
from tests.support.clock import FakeClock

EMAIL, PASSWORD = "ada@example.org", "correct horse battery"

Browser = Callable[..., TestClient]


@pytest.fixture
def context(database: Database, database_url: str, clock: FakeClock, tmp_path: Path) -> Context:
    """What the services get."""
    settings = Settings(data_dir=tmp_path / "data", database_url=database_url, secret_key="the root secret of a test")
    return Context(settings, database, clock, providers={}, hint=lambda *_: None)


@pytest.fixture
def app(context: Context) -> FastAPI:
    """The two routers, and one page-like route that takes a form."""
    app = FastAPI()
    app.state.context = context
    install_error_handlers(app)
    app.include_router(accounts.router)
    app.include_router(audit.router)

    @app.post("/form")
    def _form(principal: PrincipalDep, note: Annotated[str, Form()]) -> dict[str, str]:
        return {"note": note, "name": principal.name}

    return app


@pytest.fixture
def browser(app: FastAPI) -> Browser:
    """Makes HTTP clients, each with cookies of its own."""

    def make(address: str = "192.0.2.1") -> TestClient:
        return TestClient(app, client=(address, 40000))

    return make


@pytest.fixture
def admin(context: Context, browser: Browser) -> TestClient:
    """A browser signed in as the first administrator, CSRF header included."""
    client = browser()
    body = {"token": service.bootstrap(context).setup_token, "email": EMAIL, "name": "Ada", "password": PASSWORD}
    response = client.post("/setup", json=body)
    assert response.status_code == 201, response.text
    client.headers["X-CSRF-Token"] = response.json()["csrf_token"]
    return client


@pytest.fixture
def add_user(context: Context) -> Callable[..., User]:
    """Adds a person with :data:`PASSWORD` to a team, which is made if need be."""

    def add(email: str, *, team: str = service.DEFAULT_TEAM, is_admin: bool = False) -> User:
        now = context.clock.now()
        with context.database.transaction() as session:
            row = repository.team_by_name(session, team) or Team(name=team, created_at=now)
            hashed = passwords.hash_password(PASSWORD)
            user = User(email=email, name=email, password_hash=hashed, is_admin=is_admin, created_at=now)
            session.add_all([row, user])
            session.flush()
            session.add(Membership(user_id=user.id, team_id=row.id))
        return user

    return add


def sign_in(client: TestClient, email: str = EMAIL, password: str = PASSWORD) -> TestClient:
    """Sign ``client`` in and make it send the CSRF header."""
    response = client.post("/auth/login", json={"email": email, "password": password})
    assert response.status_code == 200, response.text
    client.headers["X-CSRF-Token"] = response.json()["csrf_token"]
    return client


def bearer(key: str) -> dict[str, str]:
    """The header that carries ``key``."""
    return {"Authorization": f"Bearer {key}"}
