"""A replica's log on disk: bounded, addressed by bytes since its beginning, readable after the replica's death."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

SEGMENT_BYTES = 4 << 20
SEGMENTS_KEPT = 4


class LogText(NamedTuple):
    """Text, and the offset (bytes since the log's beginning) at which reading goes on."""

    next_offset: int
    text: str


class _Segment(NamedTuple):
    start: int
    path: Path

    @property
    def end(self) -> int:
        return self.start + self.path.stat().st_size


@dataclass(frozen=True)
class LogStore:
    """One log as a folder of segments, each named by the offset of its first byte.

    ::

        00000000000000000000.log │ 00000000000004194304.log │ 00000000000008388608.log ◄─ appended to
        └── the oldest goes when there are more than ``segments_kept``; offsets keep their meaning

    One process appends; any number read.
    """

    folder: Path
    segment_bytes: int = SEGMENT_BYTES
    segments_kept: int = SEGMENTS_KEPT

    def append(self, data: bytes) -> None:
        """Add ``data``; drop the oldest segment when there is one too many."""
        self.folder.mkdir(parents=True, exist_ok=True)
        segments = self._segments()
        if segments and segments[-1].end - segments[-1].start < self.segment_bytes:
            target = segments[-1].path
        else:
            start = segments[-1].end if segments else 0
            target = self.folder / f"{start:020d}.log"
            for old in segments[: max(0, len(segments) + 1 - self.segments_kept)]:
                old.path.unlink(missing_ok=True)
        with target.open("ab") as file:
            file.write(data)

    @property
    def end(self) -> int:
        """Bytes written since the beginning."""
        segments = self._segments()
        return segments[-1].end if segments else 0

    def read(self, offset: int, limit: int = 1 << 16) -> LogText:
        """At most ``limit`` bytes of text from ``offset`` on; from the oldest byte kept where that is later.

        A character that is only half there is left for the next read.
        """
        for segment in self._segments():
            if offset >= segment.end:
                continue
            start = max(offset, segment.start)
            with segment.path.open("rb") as file:
                file.seek(start - segment.start)
                data = file.read(limit)
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            text = decoder.decode(data)
            unfinished = len(decoder.getstate()[0])
            if unfinished == len(data):
                return LogText(start + len(data), data.decode("utf-8", "replace"))
            return LogText(start + len(data) - unfinished, text)
        return LogText(max(offset, self.end), "")

    def tail(self, size: int) -> LogText:
        """The last ``size`` bytes, beginning with a whole line."""
        offset = start = max(0, self.end - size)
        parts: list[str] = []
        while (piece := self.read(offset)).text:
            parts.append(piece.text)
            offset = piece.next_offset
        text = "".join(parts)
        if start > 0 and "\n" in text:
            text = text.partition("\n")[2]
        return LogText(offset, text)

    def follow(self, offset: int) -> Iterator[tuple[int, str]]:
        """What is there from ``offset`` on, or from that far before the end where it is negative, piece by piece: the
        offset after each piece, and its text; ends at the present end."""
        if offset < 0:
            piece = self.tail(-offset)
            yield piece.next_offset, piece.text
            offset = piece.next_offset
        while (piece := self.read(offset)).text:
            yield piece.next_offset, piece.text
            offset = piece.next_offset

    def _segments(self) -> list[_Segment]:
        return [_Segment(int(path.stem), path) for path in sorted(self.folder.glob("*.log"))]
