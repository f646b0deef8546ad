"""What the runtime asks of a model, be it the decoder or one that Transformers runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from kernels.attention import LayerCache, PagedBatch
from kernels.latent_attention import LatentCache
from serving_image.models.cache_layout import CacheLayout

AttentionCache = LayerCache | LatentCache


@dataclass(frozen=True, slots=True)
class ModelInput:
    """A ragged batch on the device: the new tokens of several sequences, one sequence after another.

    ``token_ids`` and ``positions`` are ``[tokens]`` int64, as are ``sequence_lengths``: the length of a token's
    sequence when it was first seen, so the whole prompt's for a prompt token, ``position + 1`` for a generated one.
    ``pagings`` say which tokens and which context belong to a sequence: one per group of the cache's layout, which
    differ in their block tables and slots only.
    """

    token_ids: Tensor
    positions: Tensor
    sequence_lengths: Tensor
    pagings: tuple[PagedBatch, ...]


class ModelConfig(Protocol):
    """Sizes that the runtime plans with; elements and tokens."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def hidden_size(self) -> int: ...

    @property
    def max_position(self) -> int:
        """The longest context that the model was made for."""

    @property
    def cache_layout(self) -> CacheLayout: ...

    @property
    def query_elements(self) -> int:
        """Elements of a token's queries in the widest attention layer, and as many of its results."""

    @property
    def activation_elements(self) -> int:
        """Upper estimate of what is alive at once of a token in the widest layer."""

    @property
    def depends_on_lengths(self) -> bool:
        """Whether rotations depend on the sequence's length, computed with each batch."""


class Model(Protocol):
    """A model on its device."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def num_parameters(self) -> int: ...

    @property
    def weight_bytes(self) -> int: ...

    def forward(self, inputs: ModelInput, caches: Sequence[AttentionCache]) -> Tensor:
        """Run the new tokens through all layers, writing what attention keeps of them into ``caches``.

        :param caches: one for each attention layer, in order.
        :returns: final hidden states, ``[tokens, hidden]``.
        """

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next token, ``[rows, vocab]`` float32, for rows of :meth:`forward`'s result."""
