"""What every layer of one forward pass shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kernels.attention import PagedBatch
from serving_image.models.interface import AttentionCache
from serving_image.models.rotary import Rotation


class Step(NamedTuple):
    """A batch on the device: rotations by rotary embedding, pagings by cache group, caches by attention layer."""

    rotations: Sequence[Rotation]
    pagings: Sequence[PagedBatch]
    caches: Sequence[AttentionCache]
