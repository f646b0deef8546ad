"""The JWT with which slurmrestd is asked: from a file that somebody renews, or made from the cluster's key."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from control_plane.providers.base import ProviderUnavailable

#: Seconds that a token made here is valid: longer than any request, short enough to be worthless when it leaks.
LIFESPAN_S = 300


@dataclass(frozen=True)
class TokenSource:
    """Where tokens of ``user`` come from; ``key_file`` is preferred. Both are read anew each time: both are renewed."""

    user: str
    token_file: Path | None = None
    key_file: Path | None = None
    clock: Callable[[], float] = time.time

    def token(self) -> str:
        """A token that is valid now.

        :raises ProviderUnavailable: there is none, or it has expired.
        """
        if self.key_file is not None:
            return self._mint(_read(self.key_file))
        if self.token_file is None:
            detail = "Slurm wants a token, and none is configured"
            raise ProviderUnavailable(detail, "Set SLIPWAY_SLURM_TOKEN_FILE or SLIPWAY_SLURM_JWT_KEY_FILE.")
        # ``scontrol token`` prints "SLURM_JWT=…", and people put just that into the file.
        token = _read(self.token_file).decode(errors="replace").strip().removeprefix("SLURM_JWT=")
        expires = _expiry(token)
        if expires is not None and expires <= self.clock():
            when = datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%d %H:%M UTC")
            detail = f"the Slurm token in {self.token_file} expired at {when}"
            raise ProviderUnavailable(detail, f"Write a new one there: 'scontrol token username={self.user}'.")
        return token

    def _mint(self, key: bytes) -> str:
        """A token as Slurm's JWT plugin wants it: HS256 (RFC 7519), the user under ``sun``."""
        now = int(self.clock())
        head = _encode(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
        claims = _encode(json.dumps({"iat": now, "exp": now + LIFESPAN_S, "sun": self.user}).encode())
        signature = hmac.new(key, f"{head}.{claims}".encode(), hashlib.sha256).digest()
        return f"{head}.{claims}.{_encode(signature)}"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        detail = f"{path}, with which Slurm is asked, cannot be read ({error.strerror})"
        raise ProviderUnavailable(detail, "Make it readable by the user that Slipway runs as.") from error


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _expiry(token: str) -> float | None:
    """``exp`` of a token's claims, seconds since 1970; None where it has none, or is no token at all."""
    try:
        claims: Any = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        return float(claims["exp"])
    except (IndexError, ValueError, KeyError, TypeError):
        return None
