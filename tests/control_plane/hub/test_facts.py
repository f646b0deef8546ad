"""Facts of models on a hub over real HTTP, compared with what was put there."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from control_plane.errors import SlipwayError
from control_plane.hub import errors
from control_plane.hub.attention import AttentionLayer
from control_plane.hub.feed_forward import FeedForward
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

    assert (facts.id, facts.sha) == ("org/tiny", sha)
    assert (facts.config.architectures, facts.config.family) == (("LlamaForCausalLM",), "llama")
    assert facts.parameters == TINY_PARAMETERS
    assert facts.weight_bytes == sum(path.stat().st_size for path in folder.glob("model*.safetensors"))
    assert (facts.config.context, facts.config.hidden_size) == (512, 64)
    assert facts.config.attention == (AttentionLayer(heads=4, kv_heads=2, head_dim=16),) * 2
    assert facts.config.feed_forward == FeedForward(128)
    assert (facts.dtype, facts.license, facts.gated, facts.config.quantization) == (
        "float32",
        "apache-2.0",
        False,
        None,
    )
    assert facts.has_chat_template
    assert not facts.config.custom_code
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
    assert (old.sha, old.config.context) == (first, 512)
    assert all(first in r.path or second in r.path for r in hub.requests_for("*/resolve/*"))
    with pytest.raises(errors.RevisionNotFound, match="v2"):
        resolve(settings, TINY, "v2")


def test_nothing_of_a_repository_is_executed(hub: HubServer, settings: Settings, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    hub.add_repo("org/surprise", models.custom_code_model(tmp_path / "surprise", marker))
    facts = resolve(settings, ModelId.parse("org/surprise"))
    assert facts.config.custom_code
    assert facts.config.architecture == "SurpriseForCausalLM"
    assert not marker.exists()
    assert not hub.requests_for("*.py")


def test_pytorch_files_are_the_weights_where_there_are_no_others(
    hub: HubServer, settings: Settings, tmp_path: Path
) -> None:
    folder = models.pickle_model(tmp_path / "pickle")
    size = (folder / "pytorch_model.bin").stat().st_size
    hub.add_repo("org/pickle", folder)
    facts = resolve(settings, ModelId.parse("org/pickle"))
    assert (facts.has_weights, facts.weight_bytes, facts.dtype) == (True, size, "float32")
    assert facts.parameters == pytest.approx(TINY_PARAMETERS, rel=0.05)
    assert not hub.requests_for("*.bin")

    (folder / "pytorch_model.bin").rename(folder / "weights.pth")
    hub.add_repo("org/nothing", folder)
    assert not resolve(settings, ModelId.parse("org/nothing")).has_weights


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
        assert (facts.sha, facts.weight_bytes, facts.config.context) == (sha, online.weight_bytes, 512)
        assert (facts.parameters, facts.license) == (TINY_PARAMETERS, "apache-2.0")
    for model, revision in (("org/other", "main"), ("org/tiny", "v9"), ("org/tiny", "b" * 40)):
        with pytest.raises(errors.NotInCache):
            resolve(settings, ModelId.parse(model), revision)
    assert hub.requests == []
