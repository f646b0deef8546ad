"""The bounded log: offsets keep their meaning when old segments go."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from control_plane.providers.log_store import LogStore


def _read_all(log: LogStore, offset: int, limit: int) -> str:
    text = ""
    while (piece := log.read(offset, limit)).text:
        text += piece.text
        offset = piece.next_offset
    return text


@given(lines=st.lists(st.text(alphabet="aé語🙂\n", min_size=1, max_size=30), max_size=40), limit=st.integers(4, 50))
def test_following_in_pieces_gives_back_what_was_written(lines: list[str], limit: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = LogStore(Path(folder), segment_bytes=64, segments_kept=1000)
        for line in lines:
            log.append(line.encode())
        assert _read_all(log, 0, limit) == "".join(lines)
        assert log.end == len("".join(lines).encode())


def test_old_segments_go_and_offsets_stay(tmp_path: Path) -> None:
    log = LogStore(tmp_path, segment_bytes=100, segments_kept=3)
    for number in range(100):
        log.append(f"line {number:04d}\n".encode())

    assert log.end == 1000
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 3 * 110
    assert log.read(500 + 300, 10).text == "line 0080\n"
    assert log.read(0, 10) == log.read(log.read(0, 10).next_offset - 10, 10)  # the oldest that is kept
    assert log.read(5000).text == ""


def test_tail_begins_with_a_whole_line(tmp_path: Path) -> None:
    log = LogStore(tmp_path)
    assert log.tail(100).text == ""
    log.append(b"first line\nsecond line\nthird line\n")
    assert log.tail(15).text == "third line\n"
    assert log.tail(1000).text.startswith("first line")


def test_half_a_character_waits_for_the_other_half(tmp_path: Path) -> None:
    log = LogStore(tmp_path)
    log.append(b"caf" + "é".encode()[:1])
    piece = log.read(0)
    assert piece.text == "caf"
    log.append("é".encode()[1:])
    assert log.read(piece.next_offset).text == "é"
