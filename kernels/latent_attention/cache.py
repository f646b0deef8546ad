"""The compressed cache of multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1).

One row per token, for all heads: the normalised *latent*, from which keys and values of every head could be computed,
and the rotated part of the key, which all heads share::

    row      latent, 512 elements                             rope, 64
             └─ values ─────────────────────────────────────┘
             └─ keys ────────────────────────────────────────────────┘

The up-projections are folded into the query and into the output projection ("absorbed"), so attention reads each row
once and uses it for both.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class LatentCache(NamedTuple):
    """One layer's rows, ``[blocks, block_size, latent_dim + rope_dim]``; which token is where as for
    :class:`kernels.attention.PagedBatch`.

    A cache of ``float8_e4m3fn`` holds values divided by ``scale``, ``[1]`` float32.
    """

    rows: Tensor
    latent_dim: int
    scale: Tensor | None = None

    @property
    def block_size(self) -> int:
        return self.rows.shape[1]

    @property
    def width(self) -> int:
        return self.rows.shape[2]

    @property
    def rope_dim(self) -> int:
        return self.width - self.latent_dim
