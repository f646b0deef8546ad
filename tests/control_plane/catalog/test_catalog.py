"""The catalog file is right in itself, and searching it finds what a person would expect."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from control_plane.catalog import catalog
from control_plane.catalog.catalog import Catalog, Query, get_catalog, read_catalog
from control_plane.catalog.entry import CatalogEntry
from control_plane.catalog.support import support_of
from control_plane.hub.facts import read_facts
from control_plane.hub.folder import FolderModel
from control_plane.hub.ids import ModelId
from control_plane.hub.service import resolve
from control_plane.settings import Settings
from control_plane.sizing.machines import MACHINES
from control_plane.sizing.memory import fit
from tests.hub import models

FILE = Path(catalog.__file__).with_name("models.yaml")


def entry(id: str, **fields: Any) -> CatalogEntry:
    values: dict[str, Any] = {
        "id": id,
        "name": id.rpartition("/")[2],
        "family": "Fam",
        "architecture": "LlamaForCausalLM",
        "kind": "base",
        "parameters": 1_000_000,
        "dtype": "float32",
        "context": 512,
        "license": "mit",
        "description": "A model for a test of the catalog.",
        "config": models.llama_config(),
    }
    return CatalogEntry.model_validate(values | fields)


def test_the_catalog_is_broad_and_its_ids_are_well_formed_and_unique() -> None:
    entries = get_catalog().entries
    assert len(entries) >= 100
    assert len({e.architecture for e in entries}) >= 45
    assert len({e.id.lower() for e in entries}) == len(entries) == len({e.name for e in entries})
    assert all(str(ModelId.parse(id)) == id for e in entries for id in (e.id, *(q.id for q in e.quantized)))
    assert entries[0].id == "slipway/starter"
    gone = {"mosaicml/mpt-7b", "databricks/dbrx-instruct"}
    assert not gone & {e.id for e in entries}


def test_every_entry_is_served_and_fits_some_machine() -> None:
    for e in get_catalog().entries:
        assert e.support.supported, e.id
        assert e.hardware is not None, e.id
        context = min(4096, e.context)
        assert fit(e, e.hardware.offer, max_model_len=context).fits
        smaller = MACHINES[: MACHINES.index(e.hardware)]
        assert not any(fit(e, machine.offer, max_model_len=context, concurrency=2).fits for machine in smaller), e.id


def test_sizes_written_in_names_agree_with_parameters() -> None:
    """A guard against slips of the pen: "7B" must be about 7e9."""
    for e in get_catalog().entries:
        found = re.search(r"(?<![\w.x-])(\d+(?:\.\d+)?)([BM])(?![\w-])", e.name)
        if found:
            stated = float(found[1]) * {"B": 1e9, "M": 1e6}[found[2]]
            # Vocabularies and experts are counted here and often not in names.
            assert 0.83 * stated <= e.parameters <= 1.75 * stated, (e.id, e.parameters)


def test_what_was_not_checked_is_told() -> None:
    stated = ("architecture", "parameters", "dtype", "context", "license", "gated")
    assert entry("org/one").unchecked == stated
    assert entry("org/one", checked=["context", "license"]).unchecked == (
        "architecture",
        "parameters",
        "dtype",
        "gated",
    )
    variants = [{"id": "org/one-awq", "method": "awq"}]
    assert entry("org/one", quantized=variants).unchecked == (*stated, "quantized")
    assert entry("org/one", quantized=variants, checked=[*stated, "quantized"]).unchecked == ()


def test_bundled_chat_templates_are_there() -> None:
    """The engine has every template that an entry names."""
    from serving_image.server import chat_template

    folder = Path(chat_template.__file__).parents[1] / "chat_templates"
    named = {e.chat_template for e in get_catalog().entries if e.chat_template}
    assert named
    assert named <= {path.stem for path in folder.glob("*.jinja")}


def test_the_starter_is_what_its_entry_says(tmp_path: Path) -> None:
    facts = resolve(Settings(data_dir=tmp_path), ModelId.parse("slipway/starter"))
    listed = get_catalog().get("slipway/starter")
    assert listed is not None
    assert facts.config.architecture == listed.architecture
    assert facts.config.attention == listed.config.attention
    assert (facts.config.context, facts.license, facts.dtype) == (listed.context, listed.license, listed.dtype)
    assert facts.parameters == listed.parameters
    assert support_of(facts).supported
    assert sum(file.size for file in facts.files) <= 8_000_000


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda m: m[0].pop("license"), "license"),
        (lambda m: m[0].update(parameters="7B"), "parameters"),
        (lambda m: m[0].update(surprise=1), "surprise"),
        (lambda m: m[0].update(tags=["fancy"]), "fancy"),
        (lambda m: m[0].update(id="a b"), "a b"),
        (lambda m: m[0].update(checked=["beauty"]), "beauty"),
        (lambda m: m[0].update(tags=["small", "small"]), "tags names something twice"),
        (lambda m: m[0]["config"].pop("hidden_size"), "slipway/starter: config does not say enough"),
        (lambda m: m[0].update(context=2**20), "1024 tokens, not 1048576"),
        (lambda m: m[0].update(kind="image"), "kind"),
        (lambda m: m.append(dict(m[0])), "twice"),
        (lambda m: m.clear(), "models"),
    ],
)
def test_a_wrong_catalog_is_refused(tmp_path: Path, spoil: Callable[[Any], object], message: str) -> None:
    good = yaml.safe_load("\n  - id: ".join(FILE.read_text().split("\n  - id: ")[:3]))["models"]
    path = tmp_path / "models.yaml"
    path.write_text(yaml.safe_dump({"models": good}))
    assert len(read_catalog(path).entries) == 2
    spoil(good)
    path.write_text(yaml.safe_dump({"models": good}))
    with pytest.raises(ValueError, match=message):
        read_catalog(path)


def test_search_ranks_by_where_the_words_are_then_by_what_is_served() -> None:
    found = Catalog(
        [
            entry("org/other", description="Made for people who like a falcon."),
            entry("org/falcon-new", architecture="MambaForCausalLM"),
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
    assert [e.id for e in catalog.search(Query("Qwen2.5-7B-Instruct-AWQ"))] == ["Qwen/Qwen2.5-7B-Instruct"]
    assert len(catalog.search(Query())) == len(catalog.entries)

    def all_have(query: Query, condition: Callable[[CatalogEntry], bool]) -> None:
        found = catalog.search(query)
        assert found
        assert {e.id for e in found} == {e.id for e in catalog.entries if condition(e)}

    all_have(Query(family="qwen"), lambda e: e.family == "Qwen")
    all_have(Query(architecture="llamaforcausallm"), lambda e: e.architecture == "LlamaForCausalLM")
    all_have(Query(max_parameters=500_000_000), lambda e: e.parameters <= 500_000_000)
    all_have(Query(kind="base"), lambda e: e.kind == "base")
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
        return support_of(read_facts(name, FolderModel(models.tiny_llama(tmp_path / name, **config))))

    assert verdict("plain") == (True, None, None)
    assert verdict("scaled", rope_scaling={"rope_type": "llama3", "factor": 8.0}).supported
    assert "Transformers" in verdict("fallback", architectures=["Glm4MoeForCausalLM"]).note
    for name, config, reason in (
        ("quantised", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ("odd", {"rope_scaling": {"type": "mrope"}}, "mrope"),
        ("other", {"architectures": ["RwkvForCausalLM"]}, "RwkvForCausalLM is a state-space"),
        ("nameless", {"architectures": []}, "no architecture"),
    ):
        supported, why_not, _ = verdict(name, **config)
        assert not supported
        assert reason in why_not
    packed = models.tiny_llama(tmp_path / "packed", quantization_config={"quant_method": "awq", "bits": 4})
    known = support_of(read_facts("Qwen/Qwen2.5-7B-Instruct-AWQ", FolderModel(packed)))
    assert (known.why_not or "").endswith("awq, which is not served; use Qwen/Qwen2.5-7B-Instruct.")
    folder = models.pickle_model(tmp_path / "pickled")
    assert support_of(read_facts("pickled", FolderModel(folder))).supported
    (folder / "pytorch_model.bin").unlink()
    assert "no weights" in (support_of(read_facts("empty", FolderModel(folder))).why_not or "")
