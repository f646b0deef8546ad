"""What is reported of a token."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Logprobs(NamedTuple):
    """Log-probabilities of each row's chosen token and of its best ones.

    ``chosen``: ``[n]`` float32. ``rank``: ``[n]`` int32, how many tokens are at least as probable, itself included, so
    that equal tokens share the worst of their ranks. ``top_ids``: ``[n, num_top]`` int32, the best tokens, best first,
    of equal ones that of the lowest id; the first few are the same however many are asked for. ``top``: float32,
    theirs.

    In a row with a NaN or +inf every log-probability is NaN, and ranks and ids mean nothing.
    """

    chosen: Tensor
    rank: Tensor
    top_ids: Tensor
    top: Tensor
