"""Cache writes by indexing."""

from __future__ import annotations

from torch import Tensor


def write_kv(key_cache: Tensor, value_cache: Tensor, slots: Tensor, key: Tensor, value: Tensor) -> None:
    """See :func:`kernels.kv_write.write_kv`."""
    key_cache[slots] = key
    value_cache[slots] = value
