"""``slipway keys``."""

from __future__ import annotations

import json

from tests.control_plane.cli_client.conftest import Slipway


def test_from_creation_to_revocation(slipway: Slipway, bare_slipway: Slipway, url: str) -> None:
    made = slipway("keys", "create", "my laptop")
    key = made.out.strip()
    assert (made.code, made.out.count("\n")) == (0, 1), "the key alone is on standard output"
    assert "cannot be shown again" in made.err
    assert bare_slipway("ps", SLIPWAY_URL=url, SLIPWAY_API_KEY=key).code == 0

    listed = slipway("keys", "list")
    assert "my laptop" in listed.out
    assert key not in listed.out
    assert key[:12] in listed.out

    revoked = slipway("keys", "revoke", "my laptop")
    assert (revoked.code, revoked.out) == (0, "")
    assert bare_slipway("ps", SLIPWAY_URL=url, SLIPWAY_API_KEY=key).code == 4
    assert "revoked" in slipway("keys", "list").out


def test_json(slipway: Slipway) -> None:
    made = json.loads(slipway("keys", "create", "ci", "--expires-in-days", "30", "--json").out)
    assert made["key"].startswith(made["prefix"])
    assert made["expires_at"] is not None
    names = [key["name"] for key in json.loads(slipway("keys", "list", "--json").out)]
    assert names == ["ci", "slipway up"]
    assert json.loads(slipway("keys", "revoke", made["id"], "--json").out) == {"id": made["id"], "revoked": True}


def test_a_leaked_key_can_be_pasted(slipway: Slipway) -> None:
    key = slipway("keys", "create", "leaked").out.strip()
    assert slipway("keys", "revoke", key).code == 0


def test_an_ambiguous_name_revokes_nothing(slipway: Slipway) -> None:
    for _ in range(2):
        slipway("keys", "create", "twin")
    result = slipway("keys", "revoke", "twin")
    assert result.code == 1
    assert "2 keys are meant" in result.err
    keys = json.loads(slipway("keys", "list", "--json").out)
    assert all(key["revoked_at"] is None for key in keys)
