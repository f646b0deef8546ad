"""Passwords: argon2id, and the rules for choosing one."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from control_plane.errors import Invalid

MIN_LENGTH = 12
#: Hashing is meant to be slow; without a limit a megabyte of password would be slow for everybody.
MAX_LENGTH = 1024

# OWASP's parameters for argon2id (19 MiB, 2 passes): 40 sign-ins at once stay below 1 GiB.
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


class Verdict(NamedTuple):
    """Whether the password was right, and a new hash to store where the old one's parameters are out of date."""

    correct: bool
    rehashed: str | None = None


def check_rules(password: str, *, email: str) -> None:
    """Refuse a password that is too easy to guess.

    :raises Invalid: saying which rule it breaks.
    """
    if len(password) < MIN_LENGTH:
        raise Invalid(
            f"the password has {len(password)} characters; it needs at least {MIN_LENGTH}",
            "Choose a longer one: a few words in a row are easy to remember.",
        )
    if len(password) > MAX_LENGTH:
        raise Invalid(f"the password is longer than {MAX_LENGTH} characters", "Choose a shorter one.")
    if len(set(password)) < 4:
        raise Invalid("the password repeats fewer than four characters", "Choose one that is harder to guess.")
    if password.lower() in {email, email.partition("@")[0]}:
        raise Invalid("the password is the e-mail address", "Choose one that is harder to guess.")


def hash_password(password: str) -> str:
    """The argon2id hash of ``password``, with its parameters and salt."""
    return _hasher.hash(password)


def verify(password_hash: str | None, password: str) -> Verdict:
    """Compare; without a hash (no such user) the same work is done, so that the time taken tells nothing."""
    try:
        _hasher.verify(password_hash or _nobodys_hash(), password)
    except (VerificationError, InvalidHashError):
        return Verdict(False)
    if password_hash is None:
        return Verdict(False)
    return Verdict(True, _hasher.hash(password) if _hasher.check_needs_rehash(password_hash) else None)


@lru_cache
def _nobodys_hash() -> str:
    return _hasher.hash("a password that nobody has")
