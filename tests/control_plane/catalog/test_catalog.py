"""The catalog file is right in itself, and searching it finds what a person would expect."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from jsonschema import Draft202012Validator

from control_plane.catalog import catalog
from control_plane.catalog.architectures import (
    SERVED_ARCHITECTURES,
    SERVED_ROPE_TYPES,
    support_of,
    support_of_facts,
)
from control_plane.catalog.catalog import Catalog, CatalogEntry, Query, get_catalog, read_catalog
from control_plane.hub.facts import read_facts
from control_plane.hub.folder import FolderModel
from control_plane.hub.ids import ModelId
from control_plane.hub.service import resolve
from control_plane.settings import Settings
from tests.hub import models

SCHEMA_FOLDER = Path(catalog.__file__).parent


def entry(id: str, **fields: Any) -> CatalogEntry:
    values: dict[str, Any] = {
        "name": id.rpartition("/")[2],
        "family": "Fam",
        "architecture": "LlamaForCausalLM",
        "parameters": 1_000_000,
        "context": 2048,
        "license": "mit",
        "description": "A model for a test of the catalog.",
    }
    return CatalogEntry(id=id, **values | fields)


def test_the_catalog_is_broad_and_its_ids_are_well_formed_and_unique() -> None:
    entries = get_catalog().entries
    assert len(entries) >= 100
    assert len({e.architecture for e in entries}) >= 25
    assert len({e.id.lower() for e in entries}) == len(entries) == len({e.name for e in entries})
    assert all(str(ModelId.parse(e.id)) == e.id for e in entries)
    assert entries[0].id == "slipway/starter"
    gone = {"mosaicml/mpt-7b", "databricks/dbrx-instruct"}
    assert not gone & {e.id for e in entries}


def test_sizes_written_in_names_agree_with_parameters() -> None:
    """A guard against slips of the pen: "7B" must be about 7e9."""
    for e in get_catalog().entries:
        found = re.search(r"(?<![\w.x-])(\d+(?:\.\d+)?)([BM])(?![\w-])", e.name)
        if found:
            stated = float(found[1]) * {"B": 1e9, "M": 1e6}[found[2]]
            # Vocabularies and experts are counted here and often not in names.
            assert 0.83 * stated <= e.parameters <= 1.75 * stated, (e.id, e.parameters)


def test_every_entry_says_whether_it_is_served_and_why_not() -> None:
    for e in get_catalog().entries:
        assert e.support.supported == (e.architecture in SERVED_ARCHITECTURES and e.quantization is None)
        assert e.support.supported == (e.support.why_not is None)
        if e.architecture not in SERVED_ARCHITECTURES:
            assert e.architecture in (e.support.why_not or "")


def test_what_is_called_served_is_what_the_engine_loads() -> None:
    from serving_image.models.registry import ARCHITECTURES
    from serving_image.models.rotary import RotaryScaling

    assert set(ARCHITECTURES) == SERVED_ARCHITECTURES
    assert set(get_args(RotaryScaling)) == SERVED_ROPE_TYPES


def test_the_starter_is_what_its_entry_says(tmp_path: Path) -> None:
    facts = resolve(Settings(data_dir=tmp_path), ModelId.parse("slipway/starter"))
    listed = get_catalog().get("slipway/starter")
    assert listed is not None
    assert (facts.architecture, facts.context, facts.license) == (listed.architecture, listed.context, listed.license)
    assert facts.parameters == pytest.approx(listed.parameters, rel=0.1)
    assert support_of_facts(facts).supported
    assert sum(file.size for file in facts.files) <= 8_000_000


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda m: m[0].pop("license"), "license"),
        (lambda m: m[0].update(parameters="7B"), "parameters"),
        (lambda m: m[0].update(surprise=1), "surprise"),
        (lambda m: m[0].update(tags=["fancy"]), "fancy"),
        (lambda m: m[0].update(id="a b"), "a b"),
        (lambda m: m.append(dict(m[0])), "twice"),
        (lambda m: m.clear(), "models"),
    ],
)
def test_a_wrong_catalog_is_refused(tmp_path: Path, spoil: Callable[[Any], object], message: str) -> None:
    good = yaml.safe_load((SCHEMA_FOLDER / "models.yaml").read_text())["models"][:2]
    path = tmp_path / "models.yaml"
    path.write_text(yaml.safe_dump({"models": good}))
    assert len(read_catalog(path).entries) == 2
    spoil(good)
    path.write_text(yaml.safe_dump({"models": good}))
    with pytest.raises(ValueError, match=message):
        read_catalog(path)


def test_the_schema_is_itself_valid() -> None:
    Draft202012Validator.check_schema(json.loads((SCHEMA_FOLDER / "models.schema.json").read_text()))


def test_search_ranks_by_where_the_words_are_then_by_what_is_served() -> None:
    found = Catalog(
        [
            entry("org/other", description="Made for people who like a falcon."),
            entry("org/falcon-new", architecture="FalconForCausalLM"),
            entry("org/my-falcon"),
            entry("org/tagged", family="Falcon"),
            entry("org/falcon-served"),
            entry("org/falcon"),
        ]
    ).search(Query("  FALCON "))
    assert [e.id for e in found] == [
        "org/falcon",
        "org/falcon-served",
        "org/falcon-new",
        "org/my-falcon",
        "org/tagged",
        "org/other",
    ]


def test_every_word_must_occur_and_filters_hold() -> None:
    catalog = get_catalog()
    assert catalog.search(Query("qwen3 8b"))[0].id == "Qwen/Qwen3-8B"
    assert catalog.search(Query("Qwen/Qwen3-8B"))[0].id == "Qwen/Qwen3-8B"
    assert catalog.search(Query("qwen llama zebra")) == []
    assert len(catalog.search(Query())) == len(catalog.entries)
    assert [e.support.supported for e in catalog.search(Query())] == sorted(
        (e.support.supported for e in catalog.entries), reverse=True
    )

    def all_have(query: Query, condition: Callable[[CatalogEntry], bool]) -> None:
        found = catalog.search(query)
        assert found
        assert {e.id for e in found} == {e.id for e in catalog.entries if condition(e)}

    all_have(Query(family="qwen"), lambda e: e.family == "Qwen")
    all_have(Query(architecture="llamaforcausallm"), lambda e: e.architecture == "LlamaForCausalLM")
    all_have(Query(max_parameters=500_000_000), lambda e: e.parameters <= 500_000_000)
    all_have(Query(quantization="awq"), lambda e: e.quantization == "awq")
    all_have(Query(quantization="none"), lambda e: e.quantization is None)
    all_have(Query(license="MIT"), lambda e: e.license == "mit")
    all_have(Query(gated=True), lambda e: e.gated)
    assert catalog.search(Query(gated=False, license="gemma")) == []


def test_ids_are_found_whatever_the_case() -> None:
    listed = get_catalog().get("qwen/QWEN3-8b")
    assert listed is not None
    assert listed.id == "Qwen/Qwen3-8B"
    assert get_catalog().get("org/none") is None


def test_verdicts_by_the_checkpoint(tmp_path: Path) -> None:
    def verdict(name: str, **config: Any) -> Any:
        return support_of_facts(read_facts(name, FolderModel(models.tiny_llama(tmp_path / name, **config))))

    assert verdict("plain").supported
    assert verdict("scaled", rope_scaling={"rope_type": "llama3", "factor": 8.0}).supported
    for name, config, reason in (
        ("quantised", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ("long", {"rope_scaling": {"type": "longrope"}}, "longrope"),
        ("gelu", {"hidden_act": "gelu"}, "gelu"),
        ("other", {"architectures": ["RwkvForCausalLM"]}, "RwkvForCausalLM"),
        ("nameless", {"architectures": []}, "no architecture"),
    ):
        supported, why_not = verdict(name, **config)
        assert not supported
        assert reason in why_not
    pickled = read_facts("pickled", FolderModel(models.pickle_model(tmp_path / "pickled")))
    assert "safetensors" in (support_of_facts(pickled).why_not or "")
    assert support_of(None, None).supported is False
