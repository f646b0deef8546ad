"""The normalisation of queries and keys that some families put before the rotation or after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Kind = Literal["rms", "layer"]
Extent = Literal["head", "projection"]


@dataclass(frozen=True, slots=True)
class HeadNorms:
    """Norms of queries and keys. All is computed in float32, the product with the weight too, and rounded once.

    =================  ==========  ============  ================  =====
    family             kind        extent        weight            bias
    =================  ==========  ============  ================  =====
    Qwen3, Gemma 3     rms         head          shared            no
    OLMo 2, OLMoE      rms         projection    (a head's own)    no
    Command R+         layer       head          a head's own      no
    StableLM 2 12B     layer       head          a head's own      no
    Persimmon          layer       head          shared            yes
    MPT with qk_ln     layer       projection    (a head's own)    maybe
    Hunyuan            rms         head          shared            no     (after the rotation)
    =================  ==========  ============  ================  =====

    :ivar query: the weight, ``[head_dim]``, which all heads share, or ``[heads * head_dim]``, one of each head's own;
        contiguous, float32 or of the dtype of the projection. That of the extent "projection" is the latter.
    :ivar key: the same for keys, ``[head_dim]`` or ``[kv_heads * head_dim]``.
    :ivar epsilon: added to the mean square (see :func:`kernels.rms_norm.rms_norm`) or to the variance (see
        :func:`kernels.layer_norm.layer_norm`).
    :ivar kind: root-mean-square norm or layer norm.
    :ivar extent: of what the moments are: of each head by itself, or of all of a token's query heads (key heads) as one
        vector.
    :ivar query_bias: like ``query``; None: zeros.
    :ivar key_bias: like ``key``; None: zeros.
    :ivar after_rotation: whether the rotated heads are normalised.
    """

    query: Tensor
    key: Tensor
    epsilon: float
    kind: Kind = "rms"
    extent: Extent = "head"
    query_bias: Tensor | None = None
    key_bias: Tensor | None = None
    after_rotation: bool = False

    def __post_init__(self) -> None:
        """:raises ValueError: an unknown kind or extent, or a bias that is not like its weight."""
        if self.kind not in get_args(Kind) or self.extent not in get_args(Extent):
            raise ValueError(
                f"no norm is of kind {self.kind!r} and extent {self.extent!r}; kinds are rms and layer, extents are "
                "head and projection"
            )
        tensors = [self.query, self.key, *(bias for bias in (self.query_bias, self.key_bias) if bias is not None)]
        if any(tensor.dtype != self.query.dtype or not tensor.is_contiguous() for tensor in tensors):
            raise ValueError("weights and biases of a head norm must be contiguous and of one dtype")
        for weight, bias in ((self.query, self.query_bias), (self.key, self.key_bias)):
            if bias is not None and bias.shape != weight.shape:
                raise ValueError(f"a head norm's bias is {list(bias.shape)}, its weight {list(weight.shape)}")

    @property
    def over_projection(self) -> bool:
        """Whether all of a token's heads are one vector."""
        return self.extent == "projection"

    def check(self, heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype) -> None:
        """:raises ValueError: weights that do not fit these heads, or are neither float32 nor of the projection's
        ``dtype``."""
        for name, weight, count in (("query", self.query, heads), ("key", self.key, kv_heads)):
            own, shared = count * head_dim, head_dim
            if weight.numel() != own and (weight.numel() != shared or self.over_projection):
                wanted = f"{own}" if self.over_projection else f"{shared} or {own}"
                raise ValueError(f"the norm of {count} {name} heads of {head_dim} has {weight.numel()}, not {wanted}")
        if self.query.dtype not in (torch.float32, dtype):
            raise ValueError(f"a head norm in {self.query.dtype} of a projection in {dtype}: use float32 or {dtype}")
