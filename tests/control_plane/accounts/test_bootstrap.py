"""What ``slipway up`` prepares at each start."""

from __future__ import annotations

import stat

from fastapi.testclient import TestClient
from sqlmodel import select

from control_plane import client_file
from control_plane.accounts import service
from control_plane.accounts.tables import ApiKey, SetupToken, Team, User
from control_plane.client_file import ClientFile
from control_plane.context import Context
from tests.support.accounts import Browser, bearer

URL = "http://127.0.0.1:8000"


def keep(context: Context, api_key: str) -> None:
    context.settings.data_dir.mkdir(parents=True, exist_ok=True)
    client_file.write(context.settings.data_dir, ClientFile(URL, api_key))


def test_repeating_it_changes_nothing_but_the_link(context: Context) -> None:
    first = service.bootstrap(context)
    assert first.api_key is not None
    keep(context, first.api_key)

    second = service.bootstrap(context)

    assert second.api_key is None
    assert second.setup_token not in {None, first.setup_token}
    with context.database.reading() as session:
        assert [team.name for team in session.exec(select(Team))] == ["default"]
        assert [user.email for user in session.exec(select(User))] == [service.OPERATOR_EMAIL]
        assert len(session.exec(select(ApiKey)).all()) == 1
        assert len(session.exec(select(SetupToken)).all()) == 1


def test_the_key_is_the_operators(context: Context, browser: Browser) -> None:
    prepared = service.bootstrap(context)
    assert prepared.api_key is not None
    me = browser().get("/me", headers=bearer(prepared.api_key)).json()
    assert (me["email"], me["is_admin"]) == (service.OPERATOR_EMAIL, True)


def test_a_file_that_does_not_work_is_replaced(context: Context, admin: TestClient, browser: Browser) -> None:
    first = service.bootstrap(context).api_key
    assert first is not None
    keep(context, first)
    client = browser()
    client.headers.update(bearer(first))
    own = next(key["id"] for key in client.get("/keys").json()["items"] if first.startswith(key["prefix"]))
    assert client.delete(f"/keys/{own}").status_code == 204

    second = service.bootstrap(context).api_key
    assert second is not None
    assert browser().get("/me", headers=bearer(second)).status_code == 200
    for broken in ("", "{", "[]", '{"url": 1, "api_key": null}', '{"url": "x"}'):
        (context.settings.data_dir / client_file.NAME).write_text(broken)
        assert service.bootstrap(context).api_key is not None


def test_no_link_once_somebody_can_administer(context: Context, admin: TestClient) -> None:
    assert service.bootstrap(context).setup_token is None


def test_the_file_is_its_owners_alone(context: Context) -> None:
    keep(context, "one")
    keep(context, "two")
    path = context.settings.data_dir / client_file.NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert client_file.read(context.settings.data_dir) == ClientFile(URL, "two")
    assert [entry.name for entry in context.settings.data_dir.iterdir()] == [client_file.NAME]
