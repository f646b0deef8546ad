"""Whatever stands in a field of ``config.json``, a family reads it or says what is wrong; it never fails otherwise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from serving_image.errors import StartupError
from serving_image.models.hf_config import HFConfig
from serving_image.models.registry import native_architectures
from tests.serving_image.models.families.all_cases import CASES_OF

VALUES: tuple[Any, ...] = (None, -1, 0, 1, 2, 1.5, 1e308, float("nan"), "x", True, [], [1], {}, {"a": 1})
IRRELEVANT = {"architectures", "dtype", "torch_dtype", "model_type", "transformers_version"}


@pytest.mark.parametrize("family", CASES_OF)
def test_no_value_of_a_field_breaks_it(family: str, tmp_path: Path) -> None:
    CASES_OF[family][0].write(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    describe = native_architectures()[fields["architectures"][0]].describe
    for changed in _changes(fields):
        with suppress(StartupError):
            describe(HFConfig(tmp_path / "config.json", changed))


def _changes(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Each field absent or with another value, those of sections too."""
    for key in fields.keys() - IRRELEVANT:
        yield {name: value for name, value in fields.items() if name != key}
        yield from (fields | {key: value} for value in VALUES)
        if isinstance(fields[key], dict):
            yield from (fields | {key: section} for section in _changes(fields[key]))
