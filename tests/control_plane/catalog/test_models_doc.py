"""docs/models.md says what the registry and the catalog say."""

from __future__ import annotations

import runpy
from pathlib import Path

from control_plane.catalog.catalog import get_catalog
from control_plane.hub.architectures import get_architectures

ROOT = Path(__file__).resolve().parents[3]


def test_the_page_is_up_to_date_and_whole() -> None:
    written = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert written == runpy.run_path(str(ROOT / "scripts" / "models_doc.py"))["document"](), "run scripts/models_doc.py"
    rows = [line for line in written.splitlines() if line.startswith(("| [", "| `"))]
    assert len(rows) == len(get_catalog().entries)
    known = get_architectures()
    assert all(f"`{name}`" in written for name in known.native | known.fallback)
