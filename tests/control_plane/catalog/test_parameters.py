"""The catalog's parameter counts against what Transformers counts for the same shapes, on the meta device."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from control_plane.catalog.catalog import get_catalog

#: Families that Transformers does not have and that have Llama's parameters, with what differs from its defaults.
LLAMAS: dict[str, dict[str, Any]] = {
    "aquila": {},
    "baichuan": {},  # queries, keys and values in one
    "exaone": {},
    "internlm": {"attention_bias": True},
    "internlm2": {},  # likewise
    "minicpm": {},
    "xverse": {},
}
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
#: Lines that change no parameter, and that Transformers would refuse or not read.
_OTHERS = ("model_type", "rope_scaling", "sliding_window", "sliding_window_pattern", "seq_length", "model_max_length")


def counts(stated: dict[str, Any]) -> Iterator[int]:
    """Parameters with the output layer shared with the embedding as the config says, then with both stored.

    Layers are alike from the third on, so two shallow models tell of a deep one.
    """
    depth = next(stated[name] for name in _LAYERS if name in stated)

    def shallow(layers: int, **changes: Any) -> int:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(_config(stated, layers, changes))
        return sum(parameter.numel() for parameter in model.parameters())

    def deep(**changes: Any) -> int:
        few, more = shallow(2, **changes), shallow(4, **changes)
        return few + (more - few) // 2 * (depth - 2)

    yield deep()
    yield deep(tie_word_embeddings=False)


def _config(stated: dict[str, Any], layers: int, changes: dict[str, Any]) -> Any:
    family = stated["model_type"]
    fields = {name: value for name, value in copy.deepcopy(stated).items() if name not in _OTHERS} | changes
    if family in LLAMAS:
        fields["num_hidden_layers"] = fields.pop("num_layers", None)
        fields.pop("bias", None)
        family, fields = "llama", fields | LLAMAS[family]
    fields[next(name for name in _LAYERS if name in fields)] = layers
    if family == "gpt_neo":
        fields["attention_types"] = [[["global", "local"], layers // 2]]
        del fields["attention_layers"]
    if family == "exaone4":
        fields["layer_types"] = ["full_attention"] * layers
    return AutoConfig.for_model(family, **fields)


def chatglm(hidden: int, inner: int, layers: int, vocabulary: int, kv: int) -> int:
    """Queries, keys and values with biases; a gated projection without; RMS norms."""
    layer = hidden * (hidden + kv) + hidden + kv + hidden * hidden + 3 * hidden * inner + 2 * hidden
    return 2 * vocabulary * hidden + layers * layer + hidden


def qwen(hidden: int, both: int, layers: int, vocabulary: int) -> int:
    """A bias on queries, keys and values together; ``both`` halves of the gated projection."""
    layer = 4 * hidden * hidden + 3 * hidden + 3 * hidden * (both // 2) + 2 * hidden
    return 2 * vocabulary * hidden + layers * layer + hidden


def orion(hidden: int, inner: int, layers: int, vocabulary: int) -> int:
    """Llama with layer norms, which have biases."""
    return 2 * vocabulary * hidden + layers * (4 * hidden * hidden + 3 * hidden * inner + 4 * hidden) + 2 * hidden


def jais(hidden: int, inner: int, layers: int, vocabulary: int) -> int:
    """GPT-2 with a gated projection and no table of positions; every linear layer has a bias."""
    attention, feed_forward = 4 * hidden * hidden + 4 * hidden, 3 * hidden * inner + 2 * inner + hidden
    return vocabulary * hidden + layers * (attention + feed_forward + 4 * hidden) + 2 * hidden


#: Families that Transformers does not have, from their published definitions.
BY_HAND = {
    "chatglm": {chatglm(4096, 13_696, 28, 65_024, 2 * 2 * 128)},
    "jais": {jais(5120, 13_653, 40, 84_992)},
    "orion": {orion(5120, 15_360, 40, 84_608)},
    "qwen": {qwen(4096, 22_016, 32, 151_936)},
}


@pytest.mark.parametrize("family", sorted({entry.config_excerpt["model_type"] for entry in get_catalog().entries}))
def test_parameters_follow_from_the_shapes(family: str) -> None:
    for entry in get_catalog().entries:
        if entry.config_excerpt["model_type"] == family:
            assert entry.parameters in (BY_HAND.get(family) or counts(entry.config_excerpt)), entry.id
