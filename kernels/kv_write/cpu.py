"""Cache writes by ``index_copy_``: 5 times faster than indexing at 64 tokens (8 against 40 µs)."""

from __future__ import annotations

from torch import Tensor


def write_kv(key_cache: Tensor, value_cache: Tensor, slots: Tensor, key: Tensor, value: Tensor) -> None:
    """See :func:`kernels.kv_write.write_kv`."""
    key_cache.index_copy_(0, slots, key)
    value_cache.index_copy_(0, slots, value)
