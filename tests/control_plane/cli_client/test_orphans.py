"""``slipway orphans``: what is unmatched, and the two things that can be done about it."""

from __future__ import annotations

import json

import pytest

from control_plane.context import Context
from control_plane.ids import new_id
from control_plane.reaper.tables import Orphan, ProviderCheck
from tests.control_plane.cli_client.conftest import Slipway


@pytest.fixture
def orphan(context: Context) -> Orphan:
    """One that no row knows, found by a check 40 s ago."""
    now = context.clock.now()
    with context.database.transaction() as session:
        orphan = Orphan(
            provider="local",
            name=f"slipway-{new_id().hex}-0",
            boot_token="b",
            state="unknown",
            reason="no row knows its instance",
            first_seen_at=now,
            last_seen_at=now,
        )
        session.add(orphan)
        session.add(ProviderCheck(provider="local", last_listed_at=now, next_attempt_at=now, owned=1, unmatched=1))
    return orphan


def test_the_list(slipway: Slipway, orphan: Orphan) -> None:
    shown = slipway("orphans")
    assert shown.code == 0
    heading, provider, _, _, line = shown.out.splitlines()
    assert heading.split() == ["PROVIDER", "UNMATCHED", "CHECKED", "TROUBLE"]
    assert provider.split()[:2] == ["local", "1"]
    assert line.split()[:3] == [orphan.name, "local", "unknown"]
    assert "no row knows its instance" in line
    assert json.loads(slipway("orphans", "--json").out)["items"][0]["name"] == orphan.name


def test_before_the_first_check(slipway: Slipway) -> None:
    assert "never" in slipway("orphans").out


def test_deleting_one(slipway: Slipway, orphan: Orphan) -> None:
    assert slipway("orphans", "--delete", orphan.name).err == f"{orphan.name} is deleting\n"
    assert json.loads(slipway("orphans", "--delete", orphan.name, "--json").out)["decision"] == "delete"


def test_what_cannot_be(slipway: Slipway, orphan: Orphan) -> None:
    refused = slipway("orphans", "--adopt", orphan.name)
    assert refused.code == 1
    assert "do not say which model" in refused.err
    assert slipway("orphans", "--adopt", "nobody").code == 3
    assert slipway("orphans", "--adopt", orphan.name, "--delete", orphan.name).code == 2
