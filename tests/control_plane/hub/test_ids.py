"""Model ids and revisions: what the hub accepts and nothing else."""

from __future__ import annotations

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from hypothesis import given
from hypothesis import strategies as st

from control_plane.hub.errors import InvalidModelId, InvalidRevision
from control_plane.hub.ids import ModelId, is_safe_path, parse_revision


@pytest.mark.parametrize("text", ["gpt2", "Qwen/Qwen3-0.6B", "01-ai/Yi-6B", "a/b", "org_x/name.v1", "o/" + "n" * 96])
def test_ids_of_the_hub_are_accepted(text: str) -> None:
    assert str(ModelId.parse(f"  {text} ")) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", "a/", "/a", "a/b/c", "a//b", "../etc", "a/..", "a/b..c", "a--b/c", "-a/b", "a/b-", ".a/b", "a/b."),
        *("https://huggingface.co/a/b", "a/b?x=1", "a/b#c", "a b/c", "a/b\nc", "a/b%2f", "é/a", "a\\b", "a/b.git"),
        *("o/" + "n" * 97, "a/b@main", "a/b:c", "\x00", "a/ｂ", "modèle/x"),
    ],
)
def test_everything_else_is_refused_and_says_what_would_work(text: str) -> None:
    with pytest.raises(InvalidModelId) as caught:
        ModelId.parse(text)
    assert "organisation/name" in caught.value.next_step


@given(st.text(alphabet="ab1-_./ é", max_size=12))
def test_no_id_is_accepted_that_huggingface_hub_refuses(text: str) -> None:
    try:
        accepted = str(ModelId.parse(text))
    except InvalidModelId:
        return
    try:
        validate_repo_id(accepted)
    except HFValidationError as error:
        pytest.fail(f"{accepted!r}: {error}")


@pytest.mark.parametrize("text", ["main", "v1.0", "refs/pr/12", "a" * 40, "feature/x-y_z"])
def test_revisions(text: str) -> None:
    assert parse_revision(text) == text


@pytest.mark.parametrize("text", ["", "..", "a/../b", "/a", "a/", "a//b", "a b", "a~1", "-x", ".x", "a/.b", "x.lock"])
def test_bad_revisions(text: str) -> None:
    with pytest.raises(InvalidRevision):
        parse_revision(text)


@pytest.mark.parametrize("path", ["config.json", "a/b/c.safetensors", "ünicode name.txt", "..a"])
def test_safe_paths(path: str) -> None:
    assert is_safe_path(path)


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "a//b", ".", "a\\..\\b", "c:x", "a\nb", "a/"])
def test_dangerous_paths(path: str) -> None:
    assert not is_safe_path(path)
