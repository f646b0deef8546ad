"""The normalisation of queries and keys that some families put before the rotation."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class HeadNorms(NamedTuple):
    """Root-mean-square norms of queries and keys, in the dtype of the projection.

    :ivar query: ``[head_dim]``: each head is normalised by itself (Qwen3, Gemma 3); or ``[heads * head_dim]``: all of a
        token's heads are one vector (OLMo 2).
    :ivar key: the same for keys: ``[head_dim]`` or ``[kv_heads * head_dim]``.
    :ivar epsilon: see :func:`kernels.rms_norm.rms_norm`.
    """

    query: Tensor
    key: Tensor
    epsilon: float

    def over_projection(self, head_dim: int) -> bool:
        """Whether all of a token's heads are one vector."""
        return self.query.numel() != head_dim or self.key.numel() != head_dim
