"""Identifiers: time-ordered ids for rows, readable slugs for URLs."""

from __future__ import annotations

import re
import secrets
import uuid

import uuid_utils

_SLUG_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"


def new_id() -> uuid.UUID:
    """A UUIDv7 (RFC 9562): unique, and sorted by the time it was made."""
    return uuid.UUID(bytes=uuid_utils.uuid7().bytes)


def slugify(name: str) -> str:
    """``name`` as a URL path part: lower case, digits and single dashes, at most 40 characters; may be empty."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")


def random_suffix(length: int = 5) -> str:
    """A short random tail that makes a slug unique; no look-alike characters."""
    return "".join(secrets.choice(_SLUG_ALPHABET) for _ in range(length))
