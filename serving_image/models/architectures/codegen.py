"""CodeGen: GPT-J with one fused projection, stored in four shards."""

from __future__ import annotations

from serving_image.models.architectures.gptj import LAYERS, TOP, decoder_config
from serving_image.models.config import AttentionConfig
from serving_image.models.description import ModelDescription
from serving_image.models.hf_config import HFConfig
from serving_image.models.tensor_names import From, TensorNames
from serving_image.models.transforms import half_rotation, of_qkv, sharded

ARCHITECTURES = ("CodeGenForCausalLM",)

_SHARDS = 4
"""Of the machines that it was trained on; each holds some heads' queries, values and keys, in this order."""


def describe(config: HFConfig) -> ModelDescription:
    """As GPT-J.

    :raises StartupError: the heads do not divide into the shards.
    """
    decoder = decoder_config(config)
    (attention,) = set(decoder.attentions)
    if not isinstance(attention, AttentionConfig) or attention.rotary is None:
        raise config.error("its attention is not GPT-J's")
    heads, head_dim = attention.num_heads, attention.head_dim
    if heads % _SHARDS:
        raise config.error(f"{heads} attention heads do not divide into {_SHARDS} shards")
    reorder = of_qkv(heads, heads, head_dim, half_rotation(head_dim, attention.rotary.head_dim))
    qkv = From("attn.qkv_proj", sharded(_SHARDS, (0, 2, 1)).then(reorder))
    names = TensorNames(
        layer="transformer.h.{}.",
        layers=LAYERS | {"attention.qkv": qkv},
        top=TOP,
        redundant=r"\.attn\.causal_mask$",
    )
    return ModelDescription(decoder, names)
