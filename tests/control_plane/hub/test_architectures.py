"""What is served and what is refused, by name; held to the engine's registry and to Transformers' list of decoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from control_plane.hub.architectures import get_architectures
from control_plane.hub.config import read_config

KNOWN = get_architectures()
#: What some configurations' defaults leave out or do not allow.
SHORT: dict[str, dict[str, Any]] = {
    "dots1": {"num_hidden_layers": 2, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "hunyuan_v1_moe": {"num_hidden_layers": 2, "head_dim": 128},
}


def test_what_is_called_native_is_what_the_engine_has() -> None:
    from serving_image.models.registry import native_architectures
    from serving_image.models.rotary import RotaryScaling

    assert set(native_architectures()) == KNOWN.native
    assert set(get_args(RotaryScaling)) == KNOWN.rotary_scalings


def decoders_of_transformers() -> list[str]:
    """Class names; for some model types there are several."""
    values = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    return sorted({name for value in values for name in ((value,) if isinstance(value, str) else value)})


def test_every_decoder_of_transformers_is_judged() -> None:
    decoders = decoders_of_transformers()
    unknown = [name for name in decoders if "knows" in (KNOWN.support_of(name).why_not or "")]
    assert unknown == []
    assert not KNOWN.fallback & KNOWN.native


def test_the_engine_runs_every_fallback_and_keeps_what_was_planned(tmp_path: Path) -> None:
    """Transformers' own defaults with fewer layers, on the meta device; no weights are made."""
    from serving_image.models.transformers_backend import describe, why_not

    types = {name: kind for kind, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items() if name in KNOWN.fallback}
    assert set(types) == KNOWN.fallback
    for name, kind in types.items():
        assert why_not(name) is None, name
        stated = AutoConfig.for_model(kind, **SHORT.get(kind, {"num_hidden_layers": 2})).to_dict()
        stated["architectures"] = [name]
        (tmp_path / "config.json").write_text(json.dumps(stated))
        kept = describe(tmp_path).cache_layout.shapes
        read = read_config(stated).attention
        assert [(layer.kv_heads, layer.head_dim) for layer in read] == [tuple(shape[:2]) for shape in kept], name


def test_a_fallback_is_allowed_with_a_note() -> None:
    support = KNOWN.support_of("Glm4MoeForCausalLM")
    assert support.supported
    assert "through Transformers" in (support.note or "")
    assert KNOWN.support_of("LlamaForCausalLM") == (True, None, None)


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [
        *((name, "state-space") for name in ("MambaForCausalLM", "Mamba2ForCausalLM", "FalconMambaForCausalLM")),
        *((name, "state-space") for name in ("JambaForCausalLM", "RwkvForCausalLM", "BambaForCausalLM")),
        *((name, "state-space") for name in ("Zamba2ForCausalLM", "Lfm2ForCausalLM", "NemotronHForCausalLM")),
        *((name, "state-space") for name in ("Qwen3NextForCausalLM", "OlmoHybridForCausalLM", "FalconH1ForCausalLM")),
        *((name, "encoder or a classifier") for name in ("BertForMaskedLM", "BertModel", "RobertaForMaskedLM")),
        ("LlamaForSequenceClassification", "encoder or a classifier"),
        *((name, "encoder and decoder") for name in ("T5ForConditionalGeneration", "BartForConditionalGeneration")),
        *((name, "vision") for name in ("Qwen2VLForConditionalGeneration", "Gemma3ForConditionalGeneration")),
        *((name, "vision") for name in ("WhisperForConditionalGeneration", "ViTForImageClassification", "CLIPModel")),
        *((name, "diffusion") for name in ("StableDiffusionPipeline", "LLaDAModelLM")),
        *((name, "a decoder") for name in ("DeepseekV32ForCausalLM", "OpenAIGPTLMHeadModel", "Gemma3nForCausalLM")),
        ("SurpriseForCausalLM", "not an architecture that Slipway knows"),
        (None, "names no architecture"),
    ],
)
def test_refusals_name_the_architecture_its_kind_and_what_would_work(architecture: str | None, kind: str) -> None:
    support = KNOWN.support_of(architecture)
    assert not support.supported
    assert (architecture or "config.json") in (support.why_not or "")
    assert kind in (support.why_not or "")
    assert "Pick" in (support.why_not or "")
