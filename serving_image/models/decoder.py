"""ONE decoder: every family is this forward pass under another configuration."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from kernels.attention import PagedBatch
from kernels.linear import Layout
from serving_image.models.config import (
    AttentionConfig,
    BlockConfig,
    DecoderConfig,
    FeedForwardConfig,
    LatentAttentionConfig,
    MixtureConfig,
)
from serving_image.models.embedding import Embedding
from serving_image.models.interface import AttentionCache, ModelInput
from serving_image.models.layers.attention import Attention
from serving_image.models.layers.block import Block, Layer, RunOperation, Stream
from serving_image.models.layers.feed_forward import FeedForward
from serving_image.models.layers.latent_attention import LatentAttention
from serving_image.models.layers.mixture import Mixture
from serving_image.models.layers.norm import optional_norm
from serving_image.models.layers.step import Step
from serving_image.models.parameter_store import ParameterStore
from serving_image.models.parameters import OPERATION_NAMES, parameter_specs
from serving_image.models.rotary import Rotation, rotary_embedding


class Decoder:
    """A decoder-only transformer.

    ::

        embed ─► layer ─► layer ─► … ─► norm ─► lm_head ─► logits
                 └ blocks: attention, feed-forward, mixture; see serving_image.models.config
    """

    def __init__(
        self,
        config: DecoderConfig,
        parameters: Iterable[tuple[str, Tensor]],
        dtype: torch.dtype,
        device: torch.device,
        layout: Layout,
    ) -> None:
        """Take in the parameters that :func:`parameter_specs` lists, in its order, each in ``dtype`` or float32.

        :param layout: what becomes of the linear layers' matrices.
        """
        self.config = config
        self.dtype = dtype
        self.device = device
        store = ParameterStore(config, dtype, device, layout)
        for name, tensor in parameters:
            store.add(name, tensor)
        self._embedding = Embedding(config, store)
        self._layers = [self._layer(store, index) for index in range(len(config.layers))]
        self._final_norm = optional_norm(config.final_norm, store, "final_norm", config.hidden_size)
        self._output_projection = store.linear("output_projection") if config.embedding.width else None
        if config.tie_word_embeddings:
            self._lm_head = store.linear_of(self._embedding.table, "lm_head")
        else:
            self._lm_head = store.linear("lm_head")
        self.weight_bytes = store.nbytes
        self._rotaries = [rotary_embedding(rotary, device) for rotary in config.rotaries]

    def _layer(self, store: ParameterStore, index: int) -> Layer:
        config = self.config
        blocks = []
        for block in config.layers[index]:
            prefix = f"layers.{index}.{OPERATION_NAMES[type(block.operation)]}."
            operation = self._operation(store, prefix, block, index)
            blocks.append(Block(block, operation, store, prefix, config.hidden_size))
        return Layer(blocks)

    def _operation(self, store: ParameterStore, prefix: str, block: BlockConfig, index: int) -> RunOperation:
        config = self.config
        match block.operation:
            case FeedForwardConfig() as feed_forward:
                return FeedForward(feed_forward, store, prefix)
            case MixtureConfig() as mixture:
                return Mixture(mixture, store, prefix)
            case (AttentionConfig() | LatentAttentionConfig()) as attention:
                layer = sum(_has_attention(block) for layer in config.layers[:index] for block in layer)
                rotary, group = config.rotaries.index(attention.rotary), config.cache_layout.group_of(layer)
                if isinstance(attention, AttentionConfig):
                    return Attention(attention, store, prefix, layer=layer, rotary=rotary, group=group)
                return LatentAttention(attention, store, prefix, layer=layer, rotary=rotary, group=group)

    @property
    def num_parameters(self) -> int:
        return sum(torch.Size(spec.shape).numel() for spec in parameter_specs(self.config).values())

    def forward(self, inputs: ModelInput, caches: Sequence[AttentionCache]) -> Tensor:
        """Run the new tokens through all layers, writing what attention keeps of them into ``caches``.

        :returns: final hidden states after the last norm, ``[tokens, hidden]``.
        """
        rotations = [rotary(inputs.positions, inputs.sequence_lengths) for rotary in self._rotaries]
        return self.layers(self._embedding(inputs), rotations, inputs.pagings, caches)

    def empty_rotations(self, rows: int) -> list[Rotation]:
        """Memory for :meth:`prepare`'s rotations."""
        return [rotary.empty(rows) for rotary in self._rotaries]

    def prepare(self, inputs: ModelInput, hidden: Tensor, rotations: Sequence[Rotation]) -> None:
        """What :meth:`layers` starts from, into memory that is there; ``hidden`` is ``[tokens, hidden]``."""
        self._embedding.write(inputs, hidden)
        for rotary, rotation in zip(self._rotaries, rotations, strict=True):
            rotary.write(inputs.positions, inputs.sequence_lengths, rotation)

    def layers(
        self,
        x: Tensor,
        rotations: Sequence[Rotation],
        pagings: Sequence[PagedBatch],
        caches: Sequence[AttentionCache],
    ) -> Tensor:
        """What :meth:`forward` does after the embedding; ``x`` may be overwritten."""
        stream, step = Stream(x), Step(rotations, pagings, caches)
        for layer in self._layers:
            layer(stream, step)
        return stream.value() if self._final_norm is None else stream.normalised(self._final_norm)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next token, ``[rows, vocab]`` float32, for rows of :meth:`forward`'s result."""
        if self._output_projection is not None:
            hidden = self._output_projection(hidden)
        logits = self._lm_head.wide(hidden)
        cap = self.config.logit_softcap
        return logits if cap is None else logits.div_(cap).tanh_().mul_(cap)


def _has_attention(block: BlockConfig) -> bool:
    return isinstance(block.operation, (AttentionConfig, LatentAttentionConfig))
