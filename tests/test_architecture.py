"""The layers of the design hold: import-linter's contracts are part of the test run."""

from __future__ import annotations

from pathlib import Path

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

REPOSITORY = Path(__file__).parent.parent


def test_import_contracts_are_kept() -> None:
    assert lint_imports(config_filename=str(REPOSITORY / "pyproject.toml"), no_cache=True) == EXIT_STATUS_SUCCESS
