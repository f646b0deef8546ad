"""ONE decoder: every family is this forward pass under another configuration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kernels.attention import LayerCache, PagedBatch, paged_attention
from kernels.embedding import embed
from kernels.linear import GatedWeight, Layout, Weight
from kernels.rms_norm import rms_norm
from kernels.rotate_and_store import rotate_and_store
from serving_image.models.config import DecoderConfig, decoder_shapes
from serving_image.models.rotary import RotaryEmbedding, Rotation


@dataclass(frozen=True, slots=True)
class DecoderInput:
    """A ragged batch on the device: the new tokens of several sequences, one sequence after another.

    ``token_ids``, ``positions`` and ``sequence_lengths`` (see :class:`RotaryEmbedding`) are ``[tokens]`` int64;
    ``paging`` says which tokens and which context belong to a sequence.
    """

    token_ids: Tensor
    positions: Tensor
    sequence_lengths: Tensor
    paging: PagedBatch


@dataclass(slots=True)
class Linear:
    """A linear layer; its weight is in the device's layout."""

    weight: Weight
    bias: Tensor | None

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        return self.weight.multiply(x, self.bias, residual)


@dataclass(slots=True)
class GatedLinear:
    """The first half of a gated feed-forward block, its activation included."""

    weight: GatedWeight
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        return self.weight.multiply(x, self.bias)


@dataclass(slots=True)
class DecoderLayer:
    """The parameters of one layer."""

    attention_norm: Tensor
    qkv: Linear
    attention_output: Linear
    mlp_norm: Tensor
    gate_up: GatedLinear
    down: Linear


@dataclass
class ParameterStore:
    """Receives parameters one by one and puts each in its final layout at once, so that a plain copy of the whole
    model never exists.

    :param layout: puts a matrix of a linear layer in its final layout, in memory of its own.
    """

    config: DecoderConfig
    device: torch.device
    layout: Layout
    tensors: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Weight] = field(default_factory=dict)
    gated: dict[str, GatedWeight] = field(default_factory=dict)

    def add(self, name: str, tensor: Tensor) -> None:
        """Take over a parameter. ``tensor`` may be a view of a mapped file, so whatever is kept is a copy."""
        if name.endswith(".gate_up.weight"):
            self.gated[name] = self.layout.gated(tensor.to(self.device), has_bias=self.config.mlp_bias)
        elif name.endswith(".weight") and tensor.dim() == 2 and name != "embedding.weight":
            self.weights[name] = self.layout.weight(tensor.to(self.device))
        else:
            self.tensors[name] = tensor.to(self.device, copy=True)

    def linear(self, name: str) -> Linear:
        return Linear(self.weights[f"{name}.weight"], self.tensors.get(f"{name}.bias"))

    def gated_linear(self, name: str) -> GatedLinear:
        return GatedLinear(self.gated[f"{name}.weight"], self.tensors.get(f"{name}.bias"))

    @property
    def nbytes(self) -> int:
        """Memory that the parameters take."""
        weights = (*self.weights.values(), *self.gated.values())
        return sum(part.nbytes for part in weights) + sum(tensor.nbytes for tensor in self.tensors.values())


class Decoder:
    """A decoder-only transformer with pre-normalisation, rotary positions and a gated feed-forward block.

    ::

        embed ┬─► norm ─► qkv ─► rotate ─► attention ─► output ─► + ─┬─► norm ─► gate·up ─► down ─► + ─► norm ─► lm_head
              └───────────────────────────────────────────────────┘  └──────────────────────────────┘
              ╰────────────────────────── × num_layers ───────────────────────────────────────────╯
    """

    def __init__(
        self,
        config: DecoderConfig,
        parameters: Iterable[tuple[str, Tensor]],
        dtype: torch.dtype,
        device: torch.device,
        layout: Layout,
    ) -> None:
        """Take in the parameters that :func:`decoder_shapes` lists, in any order, each in ``dtype``.

        :param layout: what becomes of the linear layers' matrices.
        """
        self.config = config
        self.dtype = dtype
        self.device = device
        store = ParameterStore(config, device, layout)
        for name, tensor in parameters:
            store.add(name, tensor)
        self._embedding = store.tensors["embedding.weight"]
        self._layers = [self._layer(store, f"layers.{index}.") for index in range(config.num_layers)]
        self._final_norm = store.tensors["final_norm.weight"]
        if config.tie_word_embeddings:
            # Lookup needs the plain layout and the product the packed one: a tied table is held in both.
            store.weights["lm_head.weight"] = layout.weight(self._embedding)
        self._lm_head = store.linear("lm_head")
        self.weight_bytes = store.nbytes
        self._rotary = RotaryEmbedding(config.rotary, device)

    @staticmethod
    def _layer(store: ParameterStore, prefix: str) -> DecoderLayer:
        return DecoderLayer(
            attention_norm=store.tensors[prefix + "attention_norm.weight"],
            qkv=store.linear(prefix + "qkv"),
            attention_output=store.linear(prefix + "attention_output"),
            mlp_norm=store.tensors[prefix + "mlp_norm.weight"],
            gate_up=store.gated_linear(prefix + "gate_up"),
            down=store.linear(prefix + "down"),
        )

    @property
    def num_parameters(self) -> int:
        return sum(torch.Size(shape).numel() for shape in decoder_shapes(self.config).values())

    def forward(self, inputs: DecoderInput, caches: list[LayerCache]) -> Tensor:
        """Run the new tokens through all layers, writing their keys and values into ``caches``.

        :returns: final hidden states after the last norm, ``[tokens, hidden]``.
        """
        hidden = embed(inputs.token_ids, self._embedding)
        rotation = self._rotary(inputs.positions, inputs.sequence_lengths)
        return self.layers(hidden, rotation, inputs.paging, caches)

    def prepare(self, inputs: DecoderInput, hidden: Tensor, rotation: Rotation) -> None:
        """What :meth:`layers` starts from, into memory that is there; ``hidden`` is ``[tokens, hidden]``."""
        torch.index_select(self._embedding, 0, inputs.token_ids, out=hidden)
        self._rotary.write(inputs.positions, inputs.sequence_lengths, rotation)

    def layers(self, x: Tensor, rotation: Rotation, paging: PagedBatch, caches: list[LayerCache]) -> Tensor:
        """What :meth:`forward` does after the embedding; calls nothing but kernels."""
        for layer, cache in zip(self._layers, caches, strict=True):
            x = self._attention(layer, x, rotation, paging, cache)
            x = self._feed_forward(layer, x)
        return rms_norm(x, self._final_norm, self.config.norm_epsilon)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next token, ``[rows, vocab]`` float32, for rows of :meth:`forward`'s result."""
        return self._lm_head.weight.multiply(hidden, self._lm_head.bias, wide=True)

    def _attention(
        self, layer: DecoderLayer, x: Tensor, rotation: Rotation, paging: PagedBatch, cache: LayerCache
    ) -> Tensor:
        config = self.config
        qkv = layer.qkv(rms_norm(x, layer.attention_norm, config.norm_epsilon))
        query = rotate_and_store(qkv, rotation.cos, rotation.sin, paging.slots, cache)
        attended = paged_attention(query, cache, paging, config.head_dim**-0.5)
        return layer.attention_output(attended.view(x.shape[0], -1), residual=x)

    def _feed_forward(self, layer: DecoderLayer, x: Tensor) -> Tensor:
        normalised = rms_norm(x, layer.mlp_norm, self.config.norm_epsilon)
        return layer.down(layer.gate_up(normalised), residual=x)
