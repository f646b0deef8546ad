"""Writing a step's keys and values into the paged cache."""

from __future__ import annotations

from torch import Tensor

from kernels.kv_write import cpu, reference

__all__ = ["write_kv"]


def write_kv(key_cache: Tensor, value_cache: Tensor, slots: Tensor, key: Tensor, value: Tensor) -> None:
    """Store row ``i`` of ``key`` and ``value`` in slot ``slots[i]`` of the caches, in place.

    :param key_cache: ``[slots, kv_heads, head_dim]``; ``value_cache`` alike.
    :param slots: ``[tokens]`` int64, all different.
    :param key: ``[tokens, kv_heads, head_dim]``, of the caches' dtype; ``value`` alike.
    """
    if key_cache.device.type == "cpu":
        cpu.write_kv(key_cache, value_cache, slots, key, value)
    else:
        reference.write_kv(key_cache, value_cache, slots, key, value)
