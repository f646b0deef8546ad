"""From token ids to the first layer's input."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.embedding import embed
from serving_image.models.config import DecoderConfig
from serving_image.models.interface import ModelInput
from serving_image.models.layers.norm import optional_norm
from serving_image.models.parameter_store import ParameterStore


class Embedding:
    """Tokens' vectors, with what a family does to them: a projection, a factor, learned positions, a norm.

    :ivar table: ``[vocab, width]``.
    """

    def __init__(self, config: DecoderConfig, store: ParameterStore) -> None:
        embedding = config.embedding
        self.table = store.tensor("embedding.weight")
        self._projection = store.linear("embedding_projection") if embedding.width else None
        # Rounded as Transformers rounds it: the factor is multiplied in the dtype of the vectors.
        self._scale = float(torch.tensor(embedding.scale, dtype=store.dtype))
        self._positions = store.tensor("position_embedding.weight") if embedding.num_positions else None
        self._norm = optional_norm(embedding.norm, store, "embedding_norm", config.hidden_size)
        self._is_lookup = (
            self._projection is None and self._positions is None and self._norm is None and self._scale == 1
        )

    def __call__(self, inputs: ModelInput) -> Tensor:
        """The first layer's input, ``[tokens, hidden]``."""
        hidden = embed(inputs.token_ids, self.table)
        if self._is_lookup:
            return hidden
        if self._projection is not None:
            hidden = self._projection(hidden)
        if self._scale != 1:
            hidden.mul_(self._scale)
        if self._positions is not None:
            hidden.add_(self._positions.index_select(0, inputs.positions))
        return hidden if self._norm is None else self._norm(hidden)

    def write(self, inputs: ModelInput, hidden: Tensor) -> None:
        """The same, into memory that is there."""
        if self._is_lookup:
            torch.index_select(self.table, 0, inputs.token_ids, out=hidden)
        else:
            hidden.copy_(self(inputs))
