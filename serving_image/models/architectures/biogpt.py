"""BioGPT: learned positions, two rows late, and scaled words."""

from __future__ import annotations

from serving_image.models.architectures.opt import LAYERS, used_positions
from serving_image.models.architectures.xglm import scaled_words_decoder
from serving_image.models.description import ModelDescription
from serving_image.models.hf_config import HFConfig
from serving_image.models.tensor_names import TensorNames

ARCHITECTURES = ("BioGptForCausalLM",)


def describe(config: HFConfig) -> ModelDescription:
    """Attention with biases over learned positions. No norm reads ``layer_norm_eps``, in Transformers neither."""
    decoder = scaled_words_decoder(config, positions=1024)
    names = TensorNames(
        layer="biogpt.layers.{}.",
        layers=LAYERS,
        top={
            "embedding": "biogpt.embed_tokens",
            "position_embedding": used_positions("biogpt.embed_positions", decoder.max_position),
            "final_norm": "biogpt.layer_norm",
            "lm_head": "output_projection",
        },
    )
    return ModelDescription(decoder, names)
