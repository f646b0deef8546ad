"""Products for CPUs that the compiled kernels do not serve: weights repacked once for oneDNN.

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

from functools import cache

import torch
from torch import Tensor

_INT8_LIMIT = 127


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


class PackedWeight:
    """A weight in oneDNN's blocked layout, which only oneDNN can read; see :func:`can_pack`."""

    def __init__(self, weight: Tensor) -> None:
        self._opaque = torch.ops.mkldnn._reorder_linear_weight(weight)
        self.nbytes = weight.nbytes

    def multiply(
        self, x: Tensor, bias: Tensor | None = None, residual: Tensor | None = None, *, wide: bool = False
    ) -> Tensor:
        """See :class:`kernels.linear.Weight`."""
        rows = x.shape[0]
        padding = _rounded_up(rows) - rows
        if padding:
            x = torch.cat((x, x.new_zeros(padding, x.shape[1])))
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._opaque, bias, "none", [], "")[:rows]
        if residual is not None:
            product += residual
        return product.float() if wide else product


def _rounded_up(rows: int) -> int:
    """One of four numbers between a power of two and the next, or a number up to 8.

    oneDNN compiles and keeps a product for every number of rows: with 1,000 different batches that was 570 MB.
    """
    step = 1 << max(0, (rows - 1).bit_length() - 3)
    return -(-rows // step) * step


class Int8Weight:
    """A weight rounded to int8 with one scale per output column, multiplied by torch's int8 product."""

    def __init__(self, weight: Tensor) -> None:
        self._scales = _scales(weight)
        # The product wants its right side column by column.
        self._values = _rounded(weight, self._scales).t()
        self.nbytes = self._values.nbytes + self._scales.nbytes

    def multiply(
        self, x: Tensor, bias: Tensor | None = None, residual: Tensor | None = None, *, wide: bool = False
    ) -> Tensor:
        """See :class:`kernels.linear.Weight`."""
        scales = _scales(x)
        product = torch._int_mm(_rounded(x, scales), self._values).float() * scales * self._scales[:, 0]
        for term in (bias, residual):
            if term is not None:
                product += term
        return product if wide else product.to(x.dtype)


def _scales(rows: Tensor) -> Tensor:
    """What one unit of int8 is worth in each row, ``[rows, 1]`` float32."""
    return rows.abs().amax(dim=1, keepdim=True).float() / _INT8_LIMIT


def _rounded(rows: Tensor, scales: Tensor) -> Tensor:
    return (rows.float() / scales.clamp_min(torch.finfo(torch.float32).tiny)).round().to(torch.int8)
