"""How much of the key/value cache a request takes, as the engine lays it out.

A block holds the keys and values of some tokens for a *group* of layers. Layers that see a window keep only the last
blocks and full ones keep all, so a model that has both keeps them in groups of equally many layers of one window each::

    layer   0 win   1 win   2 full   3 win   4 win   5 full        groups of 2 layers: (2, 5), (0, 1), (3, 4)

A request needs blocks in each group: in a full one for all of its tokens, in another for the window and one step.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from control_plane.hub.attention import AttentionLayer

#: Tokens in a block.
BLOCK_SIZE = 32
#: The most tokens of one request in a step, at the engine's default settings.
STEP_TOKENS = 2048
#: With more groups the engine keeps all layers in one, for the widest window.
MAX_GROUPS = 8


def cached_elements(layer: AttentionLayer) -> int:
    """Numbers that the cache keeps of a token in this layer: keys and values, or their compressed form."""
    if layer.latent:
        return layer.latent.rank + layer.latent.rope_dim
    return 2 * layer.kv_heads * layer.head_dim


@dataclass(frozen=True)
class CacheLayout:
    """What requests need; ``windows`` has one entry per group: tokens that its layers see, None for all.

    ``elements_per_token``: numbers that one token takes in a block.
    """

    windows: tuple[int | None, ...]
    elements_per_token: int

    @classmethod
    def of(cls, layers: Iterable[AttentionLayer]) -> CacheLayout:
        """The layout for a model with these attention layers, at least one."""
        layers = tuple(layers)
        counts = Counter(layer.window for layer in layers)
        size = min(counts.values())
        windows = tuple(window for window, count in counts.items() for _ in range(-(-count // size)))
        alike = len({cached_elements(layer) for layer in layers}) == 1
        if len(counts) > 1 and (not alike or len(windows) > MAX_GROUPS):
            widest = None if None in counts else max(window for window in counts if window is not None)
            return cls((widest,), sum(map(cached_elements, layers)))
        if len(counts) == 1:
            return cls(windows, sum(map(cached_elements, layers)))
        return cls(windows, size * cached_elements(layers[0]))

    def blocks(self, tokens: int) -> int:
        """The most blocks that a request holds on its way to this many tokens."""
        return self._sum(-(-tokens // BLOCK_SIZE))

    def longest(self, blocks: int, limit: int) -> int:
        """The most tokens, up to ``limit``, for which this many blocks are enough."""
        candidates = range(1, -(-limit // BLOCK_SIZE) + 1)
        return min(limit, BLOCK_SIZE * bisect_right(candidates, blocks, key=self._sum))

    def _sum(self, blocks: int) -> int:
        return sum(blocks if most is None else min(blocks, most) for most in self._most)

    @cached_property
    def _most(self) -> tuple[int | None, ...]:
        """Blocks that a window and a step reach into, wherever they begin: all but one token may lie in others."""
        return tuple(
            None if window is None else (window + STEP_TOKENS - 3) // BLOCK_SIZE + 2 for window in self.windows
        )
