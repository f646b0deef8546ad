"""Stop strings in streams that are cut anywhere."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from serving_image.server.stop_strings import StopStrings

WORDS = st.text("ab\n", min_size=1, max_size=4)


def run(pieces: list[str], stops: list[str], include: bool = False) -> tuple[str, str | None]:
    watcher = StopStrings(stops, include_in_output=include)
    text = ""
    for piece in pieces:
        text += watcher.push(piece)
        if watcher.found is not None:
            return text, watcher.found
    return text + watcher.flush(), None


def expected(text: str, stops: list[str], include: bool) -> str:
    """Read character by character and look at everything so far: slow and plain."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[:end] if include else text[: end - max(map(len, ending))]
    return text


@settings(deadline=None)
@given(
    pieces=st.lists(st.text("ab\n", max_size=5), max_size=8), stops=st.lists(WORDS, max_size=3), include=st.booleans()
)
def test_the_text_ends_at_the_first_stop_string_however_it_is_cut(pieces, stops, include):
    text, found = run(pieces, stops, include)
    assert text == expected("".join(pieces), stops, include)
    assert (found is not None) == any(stop in "".join(pieces) for stop in stops)


def test_only_what_may_become_a_stop_string_is_held_back():
    watcher = StopStrings(["END"], include_in_output=False)
    assert watcher.push("so far E") == "so far "
    assert watcher.push("N") == ""
    assert watcher.push("ough") == "ENough"
    assert watcher.push("END and more") == ""
    assert watcher.push("anything") == ""
