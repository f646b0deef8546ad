"""Facts of models on a hub over real HTTP, compared with what was put there."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import snapshot_download

from control_plane.errors import SlipwayError
from control_plane.hub import errors
from control_plane.hub.config import Quantization, read_config
from control_plane.hub.ids import ModelId
from control_plane.hub.service import parse_model, resolve
from control_plane.settings import Settings
from tests.hub import HubServer, models

TINY = ModelId.parse("org/tiny")
#: Counted by hand for llama_config(): 2 × 384·64 embeddings, 64 norm, and per layer 2·64 + 64·(64+32+32+64) + 3·64·128.
TINY_PARAMETERS = 2 * 384 * 64 + 64 + 2 * (2 * 64 + 64 * 192 + 3 * 64 * 128)


@pytest.mark.parametrize("shards", [1, 3])
def test_facts_of_a_llama(hub: HubServer, settings: Settings, tmp_path: Path, shards: int) -> None:
    folder = models.tiny_llama(tmp_path / "tiny", shards=shards)
    (folder / "consolidated.safetensors").write_bytes(b"\0" * 1000)
    (folder / "model_extra").mkdir()
    (folder / "model_extra/original.safetensors").write_bytes(b"\0" * 1000)
    sha = hub.add_repo("org/tiny", folder)

    facts = resolve(settings, TINY)

    assert (facts.id, facts.sha, facts.architectures, facts.family) == ("org/tiny", sha, ("LlamaForCausalLM",), "llama")
    assert facts.parameters == TINY_PARAMETERS
    assert facts.weight_bytes == sum(path.stat().st_size for path in folder.glob("model*.safetensors"))
    assert (facts.context, facts.hidden_size, facts.layers, facts.kv_heads, facts.head_dim) == (512, 64, 2, 2, 16)
    assert (facts.dtype, facts.license, facts.gated, facts.quantization) == ("float32", "apache-2.0", False, None)
    assert facts.has_chat_template
    assert not facts.custom_code
    by_path = {file.path: file for file in facts.files}
    assert by_path.keys() == {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    weights = next(path for path in by_path if path.startswith("model") and path.endswith(".safetensors"))
    assert by_path[weights].sha256 == hashlib.sha256((folder / weights).read_bytes()).hexdigest()
    assert not by_path["config.json"].is_lfs


@pytest.mark.parametrize("shards", [1, 3])
def test_parameters_without_the_hub_s_own_count(
    hub: HubServer, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: int
) -> None:
    """From the header of the one file (two range requests), or from the index's size."""
    hub.add_repo("org/tiny", models.tiny_llama(tmp_path / "tiny", shards=shards))
    monkeypatch.setattr("tests.hub.repository._safetensors_parameters", lambda _: {})
    assert resolve(settings, TINY).parameters == TINY_PARAMETERS
    assert hub.bytes_sent("*.safetensors") < 5000


def test_a_revision_is_pinned(hub: HubServer, settings: Settings, tmp_path: Path) -> None:
    folder = models.tiny_llama(tmp_path / "tiny")
    first = hub.add_repo("org/tiny", folder)
    (folder / "config.json").write_text(json.dumps(models.llama_config(max_position_embeddings=1024)))
    second = hub.add_repo("org/tiny", folder)
    hub.add_repo("org/tiny", folder, branch="refs/pr/1")

    assert (resolve(settings, TINY).sha, resolve(settings, TINY, "refs/pr/1").sha) == (second, second)
    old = resolve(settings, TINY, first)
    assert (old.sha, old.context) == (first, 512)
    assert all(first in r.path or second in r.path for r in hub.requests_for("*/resolve/*"))
    with pytest.raises(errors.RevisionNotFound, match="v2"):
        resolve(settings, TINY, "v2")


def test_nothing_of_a_repository_is_executed(hub: HubServer, settings: Settings, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    hub.add_repo("org/surprise", models.custom_code_model(tmp_path / "surprise", marker))
    facts = resolve(settings, ModelId.parse("org/surprise"))
    assert facts.custom_code
    assert facts.architecture == "SurpriseForCausalLM"
    assert not marker.exists()
    assert not hub.requests_for("*.py")


def test_weights_that_need_unpickling_do_not_count(hub: HubServer, settings: Settings, tmp_path: Path) -> None:
    hub.add_repo("org/pickle", models.pickle_model(tmp_path / "pickle"))
    facts = resolve(settings, ModelId.parse("org/pickle"))
    assert (facts.has_safetensors, facts.weight_bytes) == (False, 0)


def test_gates_and_tokens(hub: HubServer, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = models.tiny_llama(tmp_path / "tiny")
    hub.add_repo("org/gated", folder, gated="manual")
    hub.add_repo("org/private", folder, private=True)
    hub.add_token("hf_granted", "org/gated", "org/private")
    hub.add_token("hf_other")
    gated, private = ModelId.parse("org/gated"), ModelId.parse("org/private")

    for token in (None, "hf_other"):
        with pytest.raises(errors.GatedRepository) as caught:
            resolve(settings, gated, token=token)
        assert f"{hub.url}/org/gated" in caught.value.next_step
        with pytest.raises(errors.RepositoryNotFound):
            resolve(settings, private, token=token)
    with pytest.raises(errors.HubTokenRejected):
        resolve(settings, gated, token="hf_wrong")
    assert resolve(settings, gated, token="hf_granted").gated
    monkeypatch.setenv("HF_TOKEN", "hf_granted")
    assert resolve(settings, private).id == "org/private"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"config.json": b"{"}, errors.InvalidRepository),
        ({"config.json": b"[]"}, errors.InvalidRepository),
        ({"config.json": b'{"hidden_size": NaN}'}, errors.InvalidRepository),
        ({"config.json": b"[" * 200_000}, errors.InvalidRepository),
        ({"config.json": b'{"a": "' + b"x" * 1_100_000 + b'"}'}, errors.InvalidRepository),
        ({"config.json": b'{"num_hidden_layers": "many"}'}, errors.InvalidRepository),
        ({"config.json": b'{"num_hidden_layers": -1}'}, errors.InvalidRepository),
        ({"config.json": b'{"vocab_size": 1e999}'}, errors.InvalidRepository),
        ({"config.json": b'{"architectures": "LlamaForCausalLM"}'}, errors.InvalidRepository),
        ({"config.json": b"\xff\xfe{}"}, errors.InvalidRepository),
        ({"config.json": None}, errors.NotAModel),
        ({"config.json": None, "adapter_config.json": b"{}"}, errors.NotAModel),
        ({"config.json": None, "model.gguf": b"GGUF"}, errors.NotAModel),
        ({"model.safetensors.index.json": b'{"weight_map": {"a": "../../secret"}}'}, errors.InvalidRepository),
        ({"model.safetensors.index.json": b'{"weight_map": []}'}, errors.InvalidRepository),
        ({"model.safetensors": b"\xff" * 64}, errors.InvalidRepository),
        ({"model.safetensors": b"\x02\0\0\0\0\0\0\0[]"}, errors.InvalidRepository),
        ({"model.safetensors": b"abc"}, errors.InvalidRepository),
        ({"tokenizer_config.json": b"nonsense"}, errors.InvalidRepository),
    ],
)
def test_bad_repositories_are_refused_with_a_reason(
    hub: HubServer, settings: Settings, tmp_path: Path, changes: dict[str, bytes | None], error: type[SlipwayError]
) -> None:
    folder = models.tiny_llama(tmp_path / "bad")
    for name, content in changes.items():
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)
    hub.add_repo("org/bad", folder)
    with pytest.raises(error) as caught:
        resolve(settings, ModelId.parse("org/bad"))
    assert caught.value.next_step
    assert len(caught.value.detail) < 400


def test_a_config_larger_than_its_listing_said_is_not_read_to_the_end(
    hub: HubServer, settings: Settings, tmp_path: Path
) -> None:
    hub.add_repo("org/tiny", models.tiny_llama(tmp_path / "tiny"))
    hub.faults.content(b" " * 30_000_000, "*/config.json")
    with pytest.raises(errors.InvalidRepository, match=r"config\.json"):
        resolve(settings, TINY)


def test_dangerous_file_names_are_refused(hub: HubServer, settings: Settings) -> None:
    body = json.dumps(  # forged: a git repository cannot hold such a name, a hostile hub can list it
        {"id": "org/tiny", "sha": "a" * 40, "siblings": [{"rfilename": "../../x", "size": 1, "blobId": "b" * 40}]}
    )
    hub.faults.content(body.encode(), "/api/models/*")
    with pytest.raises(errors.InvalidRepository, match="dangerous"):
        resolve(settings, TINY)


def test_short_name_and_local_namespace_never_reach_the_hub(hub: HubServer, settings: Settings) -> None:
    assert str(parse_model("starter")) == "slipway/starter"
    with pytest.raises(errors.RepositoryNotFound, match="comes with Slipway"):
        resolve(settings, ModelId.parse("slipway/none"))
    assert hub.requests == []


def test_offline_reads_the_cache_and_nothing_else(
    hub: HubServer, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = hub.add_repo("org/tiny", models.tiny_llama(tmp_path / "tiny", shards=2))
    online = resolve(settings, TINY)
    snapshot_download("org/tiny", endpoint=hub.url, cache_dir=settings.hub_cache, token=False)
    hub.forget()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    for revision in ("main", sha):
        facts = resolve(settings, TINY, revision)
        assert (facts.sha, facts.weight_bytes, facts.context) == (sha, online.weight_bytes, 512)
        assert (facts.parameters, facts.license) == (TINY_PARAMETERS, "apache-2.0")
    for model, revision in (("org/other", "main"), ("org/tiny", "v9"), ("org/tiny", "b" * 40)):
        with pytest.raises(errors.NotInCache):
            resolve(settings, ModelId.parse(model), revision)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024},
            {"hidden_size": 768, "layers": 12, "kv_heads": 12, "head_dim": 64, "context": 1024},
        ),
        ({"hidden_size": 4544, "num_attention_heads": 71, "multi_query": True}, {"kv_heads": 1, "head_dim": 64}),
        (
            {"hidden_size": 8192, "num_attention_heads": 128, "num_kv_heads": 8, "new_decoder_architecture": True}
            | {"multi_query": True},
            {"kv_heads": 8},
        ),
        ({"hidden_size": 1024, "num_attention_heads": 16, "head_dim": 128}, {"head_dim": 128, "kv_heads": 16}),
        (
            {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": {"num_hidden_layers": 34}},
            {"layers": 34, "architectures": ("Gemma3ForConditionalGeneration",)},
        ),
        ({"dtype": "bfloat16"}, {"dtype": "bfloat16"}),
        ({"torch_dtype": "torch.float16"}, {"dtype": "float16"}),
        ({"quantization_config": {"quant_method": "GPTQ", "bits": 4}}, {"quantization": Quantization("gptq", 4)}),
        ({"d_model": 4096, "attn_config": {"kv_n_heads": 8}, "n_heads": 32}, {"kv_heads": 8, "hidden_size": 4096}),
        ({"num_key_value_heads": [4, 8], "num_attention_heads": 64}, {"kv_heads": 64}),
    ],
)
def test_families_spell_the_same_thing_differently(config: dict[str, Any], expected: dict[str, Any]) -> None:
    read = read_config(config)
    assert {name: getattr(read, name) for name in expected} == expected
