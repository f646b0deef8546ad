"""Slopes of attention with linear biases."""

from __future__ import annotations


def alibi_slopes(num_heads: int, bias_max: float = 8.0) -> tuple[float, ...]:
    """How much each head's scores fall with every token of distance: Press et al. 2021, arXiv 2108.12409.

    With a power of two, ``p`` heads, head ``i`` of 1 … p has ``2 ** (-bias_max · i / p)``. Other numbers take those of
    the power below, then every other one of twice that power.

    :param bias_max: the exponent of the flattest head.
    """
    power = 1 << (num_heads.bit_length() - 1)
    slopes = [2.0 ** (-bias_max * (index + 1) / power) for index in range(power)]
    between = [2.0 ** (-bias_max * (2 * index + 1) / (2 * power)) for index in range(num_heads - power)]
    return tuple(slopes + between)
