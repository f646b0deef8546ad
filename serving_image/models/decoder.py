"""ONE decoder: every family is this forward pass under another configuration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from kernels.activation import silu_and_mul
from kernels.attention import QuerySpan, paged_attention
from kernels.kv_write import write_kv
from kernels.linear import PackedWeight, linear, prepare_weight
from kernels.rms_norm import rms_norm
from kernels.rotary import apply_rotary
from serving_image.models.config import DecoderConfig, decoder_shapes
from serving_image.models.rotary import RotaryEmbedding, Rotation


class LayerCache(NamedTuple):
    """One layer's key/value cache: two ``[slots, kv_heads, head_dim]`` tensors."""

    key: Tensor
    value: Tensor


@dataclass(frozen=True, slots=True)
class DecoderInput:
    """A ragged batch on the device: the new tokens of several sequences, one sequence after another.

    ``token_ids``, ``positions``, ``sequence_lengths`` (see :class:`RotaryEmbedding`) and ``slots`` (where each token's
    key and value go) are ``[tokens]`` int64; ``spans`` say which rows and which context belong to a sequence.
    """

    token_ids: Tensor
    positions: Tensor
    sequence_lengths: Tensor
    slots: Tensor
    spans: list[QuerySpan]


@dataclass(slots=True)
class Linear:
    """A linear layer; its weight is in the device's layout."""

    weight: Tensor | PackedWeight
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


@dataclass(slots=True)
class DecoderLayer:
    """The parameters of one layer."""

    attention_norm: Tensor
    qkv: Linear
    attention_output: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear


@dataclass
class ParameterStore:
    """Receives parameters one by one and puts each in its final layout at once, so that a plain copy of the whole
    model never exists."""

    device: torch.device
    tensors: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Tensor | PackedWeight] = field(default_factory=dict)

    def add(self, name: str, tensor: Tensor) -> None:
        """Take over a parameter. ``tensor`` may be a view of a mapped file, so whatever is kept is a copy."""
        if name.endswith(".weight") and tensor.dim() == 2 and name != "embedding.weight":
            weight = prepare_weight(tensor.to(self.device))
            self.weights[name] = weight.clone() if weight is tensor else weight
        else:
            self.tensors[name] = tensor.to(self.device, copy=True)

    def linear(self, name: str) -> Linear:
        return Linear(self.weights[f"{name}.weight"], self.tensors.get(f"{name}.bias"))


class Decoder:
    """A decoder-only transformer with pre-normalisation, rotary positions and a gated feed-forward block.

    ::

        embed ┬─► norm ─► qkv ─► rotate ─► attention ─► output ─► + ─┬─► norm ─► gate·up ─► down ─► + ─► norm ─► lm_head
              └───────────────────────────────────────────────────┘  └──────────────────────────────┘
              ╰────────────────────────── × num_layers ───────────────────────────────────────────╯
    """

    def __init__(
        self, config: DecoderConfig, parameters: Iterable[tuple[str, Tensor]], dtype: torch.dtype, device: torch.device
    ) -> None:
        """Take in the parameters that :func:`decoder_shapes` lists, in any order, each in ``dtype``."""
        self.config = config
        self.dtype = dtype
        self.device = device
        store = ParameterStore(device)
        for name, tensor in parameters:
            store.add(name, tensor)
        self._embedding = store.tensors["embedding.weight"]
        self._layers = [self._layer(store, f"layers.{index}.") for index in range(config.num_layers)]
        self._final_norm = store.tensors["final_norm.weight"]
        if config.tie_word_embeddings:
            # Lookup needs the plain layout and the product the packed one: a tied table is held in both.
            store.weights["lm_head.weight"] = prepare_weight(self._embedding)
        self._lm_head = store.linear("lm_head")
        self._rotary = RotaryEmbedding(config.rotary, device)

    @staticmethod
    def _layer(store: ParameterStore, prefix: str) -> DecoderLayer:
        return DecoderLayer(
            attention_norm=store.tensors[prefix + "attention_norm.weight"],
            qkv=store.linear(prefix + "qkv"),
            attention_output=store.linear(prefix + "attention_output"),
            mlp_norm=store.tensors[prefix + "mlp_norm.weight"],
            gate_up=store.linear(prefix + "gate_up"),
            down=store.linear(prefix + "down"),
        )

    @property
    def num_parameters(self) -> int:
        return sum(torch.Size(shape).numel() for shape in decoder_shapes(self.config).values())

    def forward(self, inputs: DecoderInput, caches: list[LayerCache]) -> Tensor:
        """Run the new tokens through all layers, writing their keys and values into ``caches``.

        :returns: final hidden states after the last norm, ``[tokens, hidden]``.
        """
        x = functional.embedding(inputs.token_ids, self._embedding)
        rotation = self._rotary(inputs.positions, inputs.sequence_lengths, self.dtype)
        for layer, cache in zip(self._layers, caches, strict=True):
            x = x + self._attention(layer, x, rotation, inputs, cache)
            x = x + self._feed_forward(layer, x)
        return rms_norm(x, self._final_norm, self.config.norm_epsilon)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next token, ``[rows, vocab]`` float32, for rows of :meth:`forward`'s result."""
        return self._lm_head(hidden).float()

    def _attention(
        self, layer: DecoderLayer, x: Tensor, rotation: Rotation, inputs: DecoderInput, cache: LayerCache
    ) -> Tensor:
        config = self.config
        qkv = layer.qkv(rms_norm(x, layer.attention_norm, config.norm_epsilon))
        heads = qkv.view(x.shape[0], -1, config.head_dim)
        # Queries and keys lie side by side in the fused projection, so one call rotates both.
        rotated = apply_rotary(heads[:, : config.num_heads + config.num_kv_heads], rotation.cos, rotation.sin)
        query, key = rotated[:, : config.num_heads], rotated[:, config.num_heads :]
        write_kv(cache.key, cache.value, inputs.slots, key, heads[:, config.num_heads + config.num_kv_heads :])
        attended = paged_attention(query, cache.key, cache.value, inputs.spans, config.head_dim**-0.5)
        return layer.attention_output(attended.view(x.shape[0], -1))

    def _feed_forward(self, layer: DecoderLayer, x: Tensor) -> Tensor:
        return layer.down(silu_and_mul(layer.gate_up(rms_norm(x, layer.mlp_norm, self.config.norm_epsilon))))
