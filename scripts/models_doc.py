#!/usr/bin/env python3
"""Writes what follows from the engine's registry: docs/models.md, with the catalog, and the control plane's list of
native architectures. ``--print`` prints the page instead.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from control_plane.catalog.catalog import get_catalog
from control_plane.catalog.entry import CatalogEntry
from control_plane.hub.architectures import get_architectures
from control_plane.sizing.machines import COMFORTABLE_CONTEXT, COMFORTABLE_REQUESTS
from serving_image.models.registry import families, native_architectures

_ROOT = Path(__file__).resolve().parents[1]
TARGET = _ROOT / "docs" / "models.md"
ARCHITECTURES = _ROOT / "control_plane" / "hub" / "architectures.yaml"

_INTRODUCTION = """\
# Models

<!-- Written by scripts/models_doc.py from the engine's registry and the catalog. Change those, then run it. -->

Any decoder on the hub whose architecture is listed here can be launched by its id, on the launch page or with
`slipway launch ORGANISATION/NAME`; {entries} models are in the catalog, with what they need. Weights are safetensors or
PyTorch's own files, which are read as plain data; nothing that comes with a model is ever executed.

- *Needs* is the smallest machine that a model runs well on, with {requests} requests of {context:,} tokens at once and
  weights as they are stored. It follows from the shapes in the catalog by the plan that the launch page and the engine
  make too.
- *Gated*: accept the authors' terms on the model's page, then set `HF_TOKEN`.
- *Not checked* names facts of the catalog that nobody has compared with published material; they are from memory. The
  launch page asks the hub itself before anything is fetched.
- *base* models continue text; *chat* models also answer conversations. A chat model with a *template* brings none:
  Slipway gives the named one to the engine (`slipway-serve --chat-template NAME`).
"""

_FALLBACK = """\
## Through Transformers

These decoders have no module of their own. Transformers computes them, with Slipway's scheduler, paged cache and
attention; slower than the families above, and windows save no memory. The rest of what they need is the same.
"""

_REFUSED = """\
## What is refused

By name, from `config.json` alone, before a byte of weights is fetched.
"""


_FACTS = {"license": "licence", "dtype": "stored type", "quantized": "quantised copies"}


def document() -> str:
    """The whole file."""
    entries = get_catalog().entries
    requests = {1: "one", 2: "two", 3: "three", 4: "four"}[COMFORTABLE_REQUESTS]
    parts = [_INTRODUCTION.format(entries=len(entries), requests=requests, context=COMFORTABLE_CONTEXT)]
    parts.append("## Families\n")
    parts += [_family(module) for _, module in sorted(families().items(), key=lambda item: _title(item[1]).lower())]
    parts.append(_FALLBACK)
    parts.append(_wrapped(f"`{name}`" for name in sorted(get_architectures().fallback)) + "\n")
    parts.append(_REFUSED)
    parts += [f"- {_sentence(group.kind)}, {group.reason}." for group in get_architectures().refused]
    parts.append("- Quantised weights, so far: use the model's own, unquantised ones.\n")
    return "\n".join(parts)


def _title(module: ModuleType) -> str:
    """The first line of the docstring, without its full stop."""
    return (module.__doc__ or module.__name__).strip().splitlines()[0].rstrip(".").replace("``", "`")


def _family(module: ModuleType) -> str:
    names, _, note = _title(module).partition(": ")
    architectures = ", ".join(f"`{name}`" for name in module.ARCHITECTURES)
    sentence = f"{architectures}: {note}" if note else architectures
    lines = [f"### {names}\n", f"{sentence.removesuffix('…').rstrip()}.\n"]
    entries = [entry for entry in get_catalog().entries if entry.architecture in module.ARCHITECTURES]
    return "\n".join(lines + (list(_table(entries)) if entries else []))


def _table(entries: Iterable[CatalogEntry]) -> Iterator[str]:
    yield "| model | parameters | weights | context | kind | licence | needs | not checked |"
    yield "| --- | ---: | ---: | ---: | --- | --- | --- | --- |"
    for entry in entries:
        template = f", template `{entry.chat_template}`" if entry.chat_template else ""
        gated = ", gated" if entry.gated else ""
        needs = entry.hardware.name if entry.hardware else "more than one device"
        unchecked = ", ".join(_FACTS.get(fact, fact) for fact in entry.unchecked)
        cells = (
            _name(entry),
            _count(entry.parameters),
            _size(entry.weight_bytes),
            f"{entry.context:,}",
            f"{entry.kind}{template}",
            f"{entry.license}{gated}",
            needs,
            unchecked,
        )
        yield f"| {' | '.join(cells)} |"
    yield ""


def _name(entry: CatalogEntry) -> str:
    if entry.id.startswith("slipway/"):
        return f"`{entry.id}`"
    return f"[{entry.id}](https://huggingface.co/{entry.id})"


def _count(parameters: int) -> str:
    billions = parameters / 1e9
    return f"{billions:.1f} B" if billions >= 1 else f"{parameters / 1e6:.0f} M"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _sentence(kind: str) -> str:
    return kind[0].upper() + kind[1:]


def _wrapped(words: Iterable[str], width: int = 120) -> str:
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) + 2 > width:
            lines.append("")
        lines[-1] += f"{word}, "
    return "\n".join(line.rstrip() for line in lines).rstrip(",") + "."


def with_native_architectures(text: str) -> str:
    """architectures.yaml, its list ``native`` as the registry has it, and none of these under ``fallback``."""
    names = sorted(native_architectures())
    listed = "native:\n" + "".join(f"  - {name}\n" for name in names)
    before, native, after = re.split(r"^(native:\n(?:  - .*\n)*)", text, maxsplit=1, flags=re.MULTILINE)
    known = set(re.findall(r"  - (.*)\n", native))
    for name in set(names) - known:
        after = after.replace(f"  - {name}\n", "", 1)
    return before + listed + after


def main() -> None:
    """Write both, or print the page."""
    if "--print" in sys.argv[1:]:
        sys.stdout.write(document())
        return
    ARCHITECTURES.write_text(with_native_architectures(ARCHITECTURES.read_text(encoding="utf-8")), encoding="utf-8")
    get_architectures.cache_clear()
    TARGET.write_text(document(), encoding="utf-8")


if __name__ == "__main__":
    main()
