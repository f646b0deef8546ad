"""Chat templates for families that were published before checkpoints carried their own.

Each file is a Jinja template, named for its family; ``--chat-template NAME`` picks one. It writes every special token
of the prompt itself. ``stop_strings``, where a file sets it, are the texts that end an answer besides the model's end
token.
"""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The names of the bundled templates, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.jinja"))


def read(name: str) -> str:
    """The text of a bundled template; ``name`` is one of :func:`names`."""
    return (_FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
