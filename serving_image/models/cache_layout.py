"""What the attention layers of a model keep of each token, and which of them share blocks of the cache.

Layers that see a window need only the last blocks, full ones all of them. So a model that has both keeps them in
*groups* of equally many layers, each of one window, with one block table per group and request. A block is
``block_size`` tokens of one group, whichever: the groups' layers share storage tensors, place by place::

    layer        0 win   1 win   2 full   3 win   4 win   5 full        window 512, windows on 4 of 6 layers
    group        a       a       c        b       b       c             groups of 2 layers
    storage      0       1       0        0       1       1

As in vLLM's hybrid key/value cache manager.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

_MAX_GROUPS = 8
"""With more, block tables would cost more than windows save."""


class CacheShape(NamedTuple):
    """Keys and values of a token in one layer; ``window``: how many tokens a query sees, itself included; None: all."""

    kv_heads: int
    head_dim: int
    window: int | None = None

    @property
    def elements(self) -> int:
        return 2 * self.kv_heads * self.head_dim


class LatentShape(NamedTuple):
    """The compressed row of a token in one layer of latent attention."""

    latent_dim: int
    rope_dim: int
    window: None = None

    @property
    def elements(self) -> int:
        return self.latent_dim + self.rope_dim


class CacheGroup(NamedTuple):
    """Attention layers with one block table: their window and their numbers, from 0, among attention layers."""

    window: int | None
    layers: tuple[int, ...]


@dataclass(frozen=True)
class CacheLayout:
    """The shape of every attention layer, in order."""

    shapes: tuple[CacheShape | LatentShape, ...]

    @cached_property
    def groups(self) -> tuple[CacheGroup, ...]:
        """Full layers' groups first. One group if all layers have one window, or cannot share storage."""
        kinds: defaultdict[int | None, list[int]] = defaultdict(list)
        for layer, shape in enumerate(self.shapes):
            kinds[shape.window].append(layer)
        size = min(map(len, kinds.values()))
        groups = tuple(
            CacheGroup(window, tuple(kinds[window][start : start + size]))
            for window in sorted(kinds, key=lambda window: (window is not None, window or 0))
            for start in range(0, len(kinds[window]), size)
        )
        sizes = {shape[:2] for shape in self.shapes}
        if len(kinds) > 1 and (len(sizes) > 1 or len(groups) > _MAX_GROUPS):
            widest = None if None in kinds else max(window for window in kinds if window is not None)
            return (CacheGroup(widest, tuple(range(len(self.shapes)))),)
        return groups

    def group_of(self, layer: int) -> int:
        """The index of a layer's group."""
        return next(index for index, group in enumerate(self.groups) if layer in group.layers)

    def storage_of(self, layer: int) -> int:
        """The index of the storage tensors that a layer reads, from 0 to :attr:`num_storages` - 1."""
        return self.groups[self.group_of(layer)].layers.index(layer)

    @property
    def num_storages(self) -> int:
        return max(len(group.layers) for group in self.groups)

    @property
    def elements_per_block_token(self) -> int:
        """Elements that a token takes in one block, over the storage tensors."""
        widest = max(self.groups, key=lambda group: len(group.layers))
        return sum(self.shapes[layer].elements for layer in widest.layers)
