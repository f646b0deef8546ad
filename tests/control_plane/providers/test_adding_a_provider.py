"""The provider on the page docs/adding-a-provider.md: one file and one line, and it passes the contract."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from control_plane.keys import installation_id
from control_plane.providers import registry
from control_plane.providers.base import Provider
from control_plane.providers.fake.hardware import CPU, GPU
from control_plane.providers.fake.place import Place
from control_plane.providers.fake.server import serving
from control_plane.settings import Settings
from tests.control_plane.providers.contract import ProviderContract
from tests.control_plane.providers.test_fake import FakeSite

PAGE = Path(__file__).parents[3] / "docs" / "adding-a-provider.md"
MODULE = "control_plane.providers.toy"


@pytest.fixture(scope="module")
def make_toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str], Provider]]:
    """The page's file where Python finds it, and its line in the registry; makes the provider of a URL and secret."""
    file, line, *_ = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    path = tmp_path_factory.mktemp("toy") / "toy.py"
    path.write_text(file)
    spec = importlib.util.spec_from_file_location(MODULE, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)

    def make(url: str, secret: str) -> Provider:
        settings = Settings(providers=["toy"], fake_url=url, secret_key=secret)
        return registry.make_providers(settings)["toy"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, MODULE, module)
        for name, target in ast.literal_eval(line).items():
            patch.setitem(registry._CLASSES, name, target)
        spec.loader.exec_module(module)
        yield make


class TestTheToyOfThePage(ProviderContract):
    @pytest.fixture
    def site(self, make_toy: Callable[[str, str], Provider]) -> Iterator[FakeSite]:
        place = Place((CPU, GPU))
        with serving(place) as server:
            ours, theirs = (make_toy(server.url, secret) for secret in ("our secret", "their secret"))
            owner = installation_id(Settings(secret_key="our secret"))
            yield FakeSite(ours, theirs, owner, place, place.plan_engine)
