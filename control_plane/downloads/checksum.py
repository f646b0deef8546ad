"""The checksum of a file that is still arriving: hashed from its beginning, as far as there is no gap."""

from __future__ import annotations

import asyncio
import hashlib

from control_plane.downloads.parts import Part

#: Bytes per step in a thread (hashlib lets go of the interpreter): a stop is noticed within some 20 ms.
STEP = 16 << 20


class Checksum:
    """Follows a part. SHA-256 of the content where the hub gives one, else git's blob id (SHA-1 with a header)."""

    def __init__(self, part: Part, sha256: str | None) -> None:
        self._part = part
        self._position = 0
        self._grown = asyncio.Event()
        header = b"blob %d\0" % part.size
        self._hash = hashlib.sha256() if sha256 else hashlib.sha1(header, usedforsecurity=False)

    def part_has_grown(self) -> None:
        """To be called after every range that is filled."""
        self._grown.set()

    async def follow(self) -> str:
        """Hash what arrives until the part is complete; returns the checksum in hexadecimal."""
        while self._position < self._part.size:
            ready = self._part.contiguous - self._position
            if ready >= STEP or self._part.complete:
                await asyncio.to_thread(self._advance, min(ready, STEP))
            else:
                self._grown.clear()
                await self._grown.wait()
        return self._hash.hexdigest()

    def _advance(self, length: int) -> None:
        self._hash.update(self._part.read(self._position, length))
        self._position += length
