"""CodeGen: GPT-J with one fused projection, stored in four shards."""

from __future__ import annotations

from serving_image.models.architectures import gpt2, gptj
from serving_image.models.description import ModelDescription
from serving_image.models.hf_config import HFConfig
from serving_image.models.tensor_names import From, TensorNames
from serving_image.models.transforms import half_rotation, of_qkv, sharded

ARCHITECTURES = ("CodeGenForCausalLM",)

_SHARDS = 4
_QUERY_KEY_VALUE = (0, 2, 1)
"""Where they are in a shard: the values before the keys."""


def describe(config: HFConfig) -> ModelDescription:
    """As GPT-J.

    :raises StartupError: the heads do not divide into the shards.
    """
    config = config.respelled(gpt2.SPELLINGS)
    heads = gptj.attention_heads(config)
    if heads.num_heads % _SHARDS:
        raise config.error(f"{heads.num_heads} attention heads do not divide into {_SHARDS} shards")
    reorder = half_rotation(heads.head_dim, gptj.rotated_elements(config, heads))
    qkv = From("attn.qkv_proj", sharded(_SHARDS, _QUERY_KEY_VALUE).then(of_qkv(*heads, reorder)))
    names = TensorNames(
        layer="transformer.h.{}.",
        layers=gptj.LAYERS | {"attention.qkv": qkv},
        top=gptj.TOP,
        redundant=r"\.attn\.causal_mask$",
    )
    return ModelDescription(gptj.decoder_config(config), names)
