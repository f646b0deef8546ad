"""What commands print: results on standard output, everything that merely accompanies them on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from control_plane.cli.client.text import printable


def print_json(value: Any) -> None:
    """One JSON document for programs."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_line(line: str = "") -> None:
    """A line of the result."""
    print(printable(line), flush=True)


def say(line: str) -> None:
    """A line that accompanies the result."""
    print(printable(line), file=sys.stderr, flush=True)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """A table as wide as it needs to be; ``empty`` says, on standard error, what its absence means."""
    # Imported here: 'slipway launch --json' must not wait for what only tables need.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        # Text, not str: rich would read square brackets in a name as markup.
        table.add_row(*(Text(printable(cell)) for cell in row))
    if table.row_count == 0:
        say(empty)
        return
    # Never cut or folded: a URL must survive a narrow terminal's copying, and a pipe has no width at all.
    console = Console(width=10_000, highlight=False)
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        print(line.rstrip())


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Names and values, one a line."""
    lines = [(name, printable(value)) for name, value in facts]
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:<{width}}  {value}")
