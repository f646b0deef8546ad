"""The cases of every family that the registry has: a family without a file here of its name fails to import."""

from __future__ import annotations

from importlib import import_module

from serving_image.models.registry import families
from tests.serving_image.models.families.case import Case

CASES_OF: dict[str, list[Case]] = {name: import_module(f"{__package__}.{name}").CASES for name in sorted(families())}
