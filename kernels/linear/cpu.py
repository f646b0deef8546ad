"""Weights repacked once for oneDNN, so that no product reorders them again.

Measured with 2 threads on a CPU with AVX512-BF16, 1024 → 5632, milliseconds per product:

====== ========= ============ ========= ===========
tokens fp32      fp32 packed  bf16      bf16 packed
====== ========= ============ ========= ===========
1      1.56      0.80         0.64      0.36
64     6.1       2.1          1.45      1.1
512    36        14.7         8.0       7.4
====== ========= ============ ========= ===========
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor


@cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies this dtype natively here; an emulated product would be slower than torch's own."""
    if not torch._C._has_mkldnn:
        return False
    if dtype == torch.float32:
        return True
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if dtype == torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return False


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """A weight in oneDNN's blocked layout, which only oneDNN can read."""

    opaque: Tensor
    shape: tuple[int, int]

    @classmethod
    def pack(cls, weight: Tensor) -> PackedWeight:
        """Repack a ``[out_features, in_features]`` CPU tensor; see :func:`can_pack`."""
        out_features, in_features = weight.shape
        opaque = torch.ops.mkldnn._reorder_linear_weight(weight)
        return cls(opaque, (out_features, in_features))

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """``x @ weight.T + bias`` for ``x`` ``[tokens, in_features]``."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.opaque, bias, "none", [], "")
        return product
