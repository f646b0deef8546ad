"""What every layout of a weight can do."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Weight(Protocol):
    """A weight ``[out_features, in_features]`` in its final layout, which takes ``nbytes`` of memory."""

    nbytes: int

    def multiply(
        self, x: Tensor, bias: Tensor | None = None, residual: Tensor | None = None, *, wide: bool = False
    ) -> Tensor:
        """``x @ weight.T + bias + residual``.

        :param x: ``[tokens, in_features]``, contiguous, of the dtype that the weight was prepared from.
        :param bias: ``[out_features]`` or None.
        :param residual: ``[tokens, out_features]``, contiguous, or None. It may be overwritten, with the result or with
            anything else: a GPU adds to it where it lies. Not ``x`` itself.
        :param wide: return float32, whatever the dtype of ``x``.
        :returns: ``[tokens, out_features]``.
        """
