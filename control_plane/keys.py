"""Keys that people carry, and what is derived from the server's root secret.

An API key is ``sk-slip-`` + 32 characters (160 random bits, base32) + 6 characters (checksum). The checksum is no
secret: it tells a mistyped or cut-off key from a revoked one without asking the database.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from base64 import b32encode

from control_plane.settings import Settings

API_KEY_PREFIX = "sk-slip-"
_RANDOM_BYTES = 20
_CHECKSUM_LENGTH = 6
_SHAPE = re.compile(rf"{API_KEY_PREFIX}([a-z2-7]{{32}})([a-z2-7]{{{_CHECKSUM_LENGTH}}})")
#: Characters by which a person recognises a key in a list: the prefix and the first four random ones.
_SHOWN = len(API_KEY_PREFIX) + 4


def hmac_hex(material: bytes, purpose: str, value: str) -> str:
    """HMAC-SHA-256 (RFC 2104) of ``purpose:value`` in hex, 64 characters; purposes keep derived values apart."""
    return hmac.new(material, f"{purpose}:{value}".encode(), hashlib.sha256).hexdigest()


def new_api_key() -> str:
    """A fresh API key."""
    body = _base32(secrets.token_bytes(_RANDOM_BYTES))
    return API_KEY_PREFIX + body + _checksum(body)


def is_well_formed(key: str) -> bool:
    """Whether ``key`` can be one of ours at all: shape and checksum."""
    match = _SHAPE.fullmatch(key)
    return match is not None and hmac.compare_digest(_checksum(match[1]), match[2])


def shown_prefix(key: str) -> str:
    """The part of ``key`` that may be stored and shown."""
    return key[:_SHOWN]


def new_token() -> str:
    """256 random bits for a session cookie or a one-time link; safe in URLs."""
    return secrets.token_urlsafe(32)


def replica_key(settings: Settings, resource_name: str, boot_token: str) -> str:
    """The bearer key that one boot of a replica demands of its callers: derived, so that it is nowhere stored.

    Another boot has another key: a machine that comes up at a dead one's address cannot be mistaken for it.
    """
    return hmac_hex(settings.key_material, "replica", f"{resource_name}:{boot_token}")


def agent_token(settings: Settings, resource_name: str, boot_token: str) -> str:
    """What one boot of a download agent presents when it reports; derived, as a replica's key is."""
    return hmac_hex(settings.key_material, "agent", f"{resource_name}:{boot_token}")


def installation_id(settings: Settings) -> str:
    """Which installation owns what carries its tag: the same for every process that shares the root secret."""
    return hmac_hex(settings.key_material, "installation", "")[:16]


def _checksum(body: str) -> str:
    return _base32(hashlib.sha256(body.encode()).digest())[:_CHECKSUM_LENGTH]


def _base32(data: bytes) -> str:
    return b32encode(data).decode().rstrip("=").lower()
