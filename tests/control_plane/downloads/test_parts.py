"""A part on disk: what it remembers, for whom it is locked, and what it does not trust."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.downloads.parts import PartBusy, bytes_on_disk, open_part, remove_part


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(0, 200),
    range_bytes=st.integers(1, 70),
    sessions=st.lists(st.lists(st.tuples(st.integers(0, 99), st.integers(1, 40)), max_size=8), max_size=4),
)
def test_what_was_written_is_known_after_every_reopening(
    size: int, range_bytes: int, sessions: list[list[tuple[int, int]]]
) -> None:
    """Against a plain model: a set of the offsets that were written."""
    content = bytes(index % 251 for index in range(size))
    written: set[int] = set()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "part"
        for session in [*sessions, []]:
            with open_part(folder, size, range_bytes) as part:
                for choice, length in session:
                    if not part.missing:
                        break
                    into = part.missing[choice % len(part.missing)]
                    start, stop = into.position, min(into.position + length, into.stop)
                    part.write(into, content[start:stop])
                    written.update(range(start, stop))
                assert part.written == len(written)
                assert part.complete is (len(written) == size)
                gap = next((offset for offset in range(size) if offset not in written), size)
                assert part.contiguous == gap
                assert part.read(0, gap) == content[:gap]
                left = {offset for r in part.missing for offset in range(r.position, r.stop)}
                assert left == set(range(size)) - written
            assert bytes_on_disk(folder, size) == len(written)
            range_bytes += 1  # the division that is on disk stays


def test_a_part_is_for_one_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "part"
    with open_part(folder, 10, 4):
        with pytest.raises(PartBusy), open_part(folder, 10, 4):
            pass
        remove_part(folder)
        assert folder.exists(), "in use: left alone"
    with open_part(folder, 10, 4):
        pass
    remove_part(folder)
    assert not folder.exists()
    remove_part(folder)


def test_more_than_a_range_holds_is_refused(tmp_path: Path) -> None:
    with open_part(tmp_path / "part", 10, 4) as part:
        with pytest.raises(ValueError, match="5 bytes do not fit"):
            part.write(part.ranges[0], b"12345")
        assert part.written == 0


def test_restart_forgets(tmp_path: Path) -> None:
    with open_part(tmp_path / "part", 6, 4) as part:
        part.write(part.ranges[0], b"1234")
        part.restart()
        assert (part.written, part.contiguous) == (0, 0)
    with open_part(tmp_path / "part", 6, 4) as part:
        assert part.written == 0


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda folder: (folder / "data").unlink(), id="no data"),
        pytest.param(lambda folder: (folder / "data").write_bytes(b"1234"), id="data cut short"),
        pytest.param(lambda folder: (folder / "ranges").write_bytes(b"garbage"), id="no header"),
        pytest.param(lambda folder: (folder / "ranges").write_bytes(b"\xff" * 48), id="another header"),
        pytest.param(
            lambda folder: (folder / "ranges").write_bytes((folder / "ranges").read_bytes()[:-4]), id="counts cut short"
        ),
        pytest.param(
            lambda folder: (folder / "ranges").write_bytes((folder / "ranges").read_bytes()[:-8] + b"\x09" + b"\0" * 7),
            id="a count beyond its range",
        ),
    ],
)
def test_what_cannot_be_trusted_is_begun_anew(spoil: object, tmp_path: Path) -> None:
    folder = tmp_path / "part"
    with open_part(folder, 10, 4) as part:
        part.write(part.ranges[0], b"1234")
    assert callable(spoil)
    spoil(folder)
    with open_part(folder, 10, 4) as part:
        assert part.written == 0
        assert [(r.start, r.stop) for r in part.ranges] == [(0, 4), (4, 8), (8, 10)]
    assert bytes_on_disk(folder, 10) == 0
    assert bytes_on_disk(tmp_path / "nowhere", 10) == 0


def test_a_part_of_another_size_is_begun_anew(tmp_path: Path) -> None:
    with open_part(tmp_path / "part", 10, 4) as part:
        part.write(part.ranges[0], b"1234")
    assert bytes_on_disk(tmp_path / "part", 12) == 0
    with open_part(tmp_path / "part", 12, 4) as part:
        assert part.written == 0
