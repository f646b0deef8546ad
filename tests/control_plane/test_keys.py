"""Keys and derived values."""

from __future__ import annotations

import string
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from control_plane.keys import hmac_hex, is_well_formed, new_api_key, replica_key, shown_prefix
from control_plane.settings import Settings


def test_keys_are_long_and_different() -> None:
    keys = {new_api_key() for _ in range(100)}
    assert len(keys) == 100
    for key in keys:
        assert is_well_formed(key)
        assert key.startswith("sk-slip-")
        # 32 base32 characters carry 160 bits.
        assert len(key) == len("sk-slip-") + 32 + 6
        assert len(shown_prefix(key)) <= 20


@given(st.integers(min_value=8, max_value=45), st.sampled_from(string.ascii_lowercase + "234567"))
def test_one_mistyped_character_is_noticed(position: int, replacement: str) -> None:
    key = new_api_key()
    mistyped = key[:position] + replacement + key[position + 1 :]
    assert is_well_formed(mistyped) == (mistyped == key)


def test_a_key_that_is_cut_off_or_has_more_is_noticed() -> None:
    key = new_api_key()
    for wrong in (key[:-1], key + "a", key.upper(), " " + key, key + "\n", "", "sk-slip-"):
        assert not is_well_formed(wrong)


def test_hmac_agrees_with_another_implementation() -> None:
    # printf 'replica:slipway-1' | openssl dgst -sha256 -hmac Jefe
    expected = "3fc2472cb06782d01cfef6b9882806872f785dcc886307404a8572a78b2fb990"
    assert hmac_hex(b"Jefe", "replica", "slipway-1") == expected


def test_a_replicas_key_depends_on_its_name_its_boot_and_the_root_secret(tmp_path: Path) -> None:
    one, other = (Settings(data_dir=tmp_path, secret_key=secret) for secret in ("a", "b"))
    assert replica_key(one, "x", "1") == replica_key(one, "x", "1")
    keys = {replica_key(*made) for made in ((one, "x", "1"), (one, "y", "1"), (one, "x", "2"), (other, "x", "1"))}
    assert len(keys) == 4
