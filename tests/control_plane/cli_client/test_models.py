"""``slipway models``, ``resolve`` and ``hardware``."""

from __future__ import annotations

import json
from pathlib import Path

from tests.control_plane.cli_client.conftest import Slipway
from tests.hub.models import unsupported_model
from tests.hub.server import HubServer


def test_search(slipway: Slipway) -> None:
    everything = json.loads(slipway("models", "--json").out)
    found = json.loads(slipway("models", "llama", "--no-gated", "--max-parameters", "2000000000", "--json").out)
    assert 0 < len(found) < len(everything)
    assert all(not model["gated"] and model["parameters"] <= 2e9 for model in found)
    table = slipway("models", "llama", "--no-gated", "--max-parameters", "2000000000")
    assert [line.split()[0] for line in table.out.splitlines()[1:]] == [model["id"] for model in found]


def test_what_a_model_needs_is_in_the_table(slipway: Slipway) -> None:
    (entry,) = json.loads(slipway("models", "gpt-neox-20b", "--kind", "base", "--json").out)
    line = slipway("models", "gpt-neox-20b").out.splitlines()[1]
    for part in ("EleutherAI/gpt-neox-20b", "base", entry["hardware"], "apache-2.0"):
        assert part in line
    assert slipway("models", "gpt-neox-20b", "--kind", "image").code == 2


def test_what_is_not_served_says_so(slipway: Slipway, model: str, hub: HubServer, tmp_path: Path) -> None:
    hub.add_repo("tests/odd", unsupported_model(tmp_path / "odd"))
    found = json.loads(slipway("resolve", "tests/odd", "--json").out)
    assert not found["supported"]
    assert f"no: {found['why_not']}" in slipway("resolve", "tests/odd").out


def test_no_match(slipway: Slipway) -> None:
    result = slipway("models", "zzzzzz")
    assert (result.code, result.out) == (0, "")
    assert "slipway resolve" in result.err


def test_resolve(slipway: Slipway, model: str) -> None:
    found = json.loads(slipway("resolve", model, "--max-model-len", "64", "--json").out)
    assert (found["architecture"], found["supported"]) == ("LlamaForCausalLM", True)
    shown = slipway("resolve", model)
    for part in (model, found["commit_sha"], "LlamaForCausalLM", "local-cpu", "8.0 GiB", "$0.50/h", "apache-2.0"):
        assert part in shown.out, part


def test_resolve_nothing(slipway: Slipway, model: str) -> None:
    assert slipway("resolve", "no/such-model").code == 3
    assert slipway("resolve", "not a model id").code == 2


def test_hardware(slipway: Slipway) -> None:
    assert json.loads(slipway("hardware", "--json").out)[0]["id"] == "local-cpu"
    line = slipway("hardware").out.splitlines()[1]
    for part in ("local-cpu", "2 cores", "8.0 GiB", "$0.50/h", "yes"):
        assert part in line
