"""A replica's log: bounded, addressed by bytes since its beginning."""

from __future__ import annotations

import codecs
import contextlib
from pathlib import Path

from control_plane.providers.ssh_host.supervisor.files import Json

SEGMENT_BYTES, SEGMENTS_KEPT = 4 << 20, 4


def append(folder: Path, data: bytes) -> None:
    """Add ``data``; drop the oldest segment when there is one too many."""
    folder.mkdir(exist_ok=True)
    segments = sorted(folder.glob("*.log"))
    target = segments[-1] if segments else folder / f"{0:020d}.log"
    if segments and target.stat().st_size >= SEGMENT_BYTES:
        target = folder / f"{int(target.stem) + target.stat().st_size:020d}.log"
        for old in segments[: len(segments) + 1 - SEGMENTS_KEPT]:
            old.unlink()
    with contextlib.suppress(OSError), target.open("ab") as file:  # a full disk must not end the replica
        file.write(data)


def read(folder: Path, offset: int, limit: int, tail: int | None) -> Json:
    """At most ``limit`` bytes of text from ``offset`` on; from its last ``tail`` bytes where that is given."""
    segments = sorted(folder.glob("*.log"))
    end = int(segments[-1].stem) + segments[-1].stat().st_size if segments else 0
    offset = offset if tail is None else max(0, end - tail)
    for segment in segments:
        start = int(segment.stem)
        if offset >= start + segment.stat().st_size:
            continue
        offset = max(offset, start)
        with segment.open("rb") as file:
            file.seek(offset - start)
            data = file.read(limit)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(data)
        unfinished = len(decoder.getstate()[0])  # of a character that is only half there
        if unfinished == len(data):
            text, unfinished = data.decode("utf-8", "replace"), 0
        return {"start": offset, "next_offset": offset + len(data) - unfinished, "text": text}
    return {"start": offset, "next_offset": max(offset, end), "text": ""}
