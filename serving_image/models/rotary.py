"""Rotary frequencies under every scaling that Llama checkpoints use.

A position's cosines and sines are computed once, at load, for every position of the context: 16 MB for 32,768 positions
of head size 128. So they are the same in every batch. Only ``dynamic`` scaling, whose frequencies follow the length of
the sequence, computes them with each step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

RotaryScaling = Literal["default", "linear", "dynamic", "llama3", "yarn"]


@dataclass(frozen=True, kw_only=True)
class RotaryConfig:
    """Rotary embedding of a model. Fields that a scaling does not use keep their defaults.

    ``max_position`` is the context that ``dynamic`` starts to stretch beyond; ``original_max_position`` the context
    before ``llama3`` or ``yarn`` extended it. ``attention_factor`` None means: YaRN's formula.
    """

    head_dim: int
    theta: float
    max_position: int
    scaling: RotaryScaling = "default"
    factor: float = 1.0
    original_max_position: int = 0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True

    @property
    def extended_max_position(self) -> int:
        """The longest context in tokens that the model is meant for.

        Checkpoints with ``linear`` and ``llama3`` scaling state the extended context as their maximum; ``dynamic``
        ones state the context before stretching; ``yarn`` ones are seen either way.
        """
        if self.scaling == "dynamic":
            return int(self.max_position * self.factor)
        if self.scaling == "yarn":
            return max(self.max_position, int(self.original_max_position * self.factor))
        return self.max_position


class Rotation(NamedTuple):
    """Cosine and sine for each token, ``[tokens, head_dim / 2]``."""

    cos: Tensor
    sin: Tensor


class RotaryEmbedding:
    """Turns token positions into rotations, from a table where a position's angles never change."""

    def __init__(self, config: RotaryConfig, device: torch.device) -> None:
        self._config = config
        self._amplitude = attention_amplitude(config)
        if config.scaling == "dynamic":
            # On the device now: a copy later would wait for it, and a CUDA graph cannot hold one.
            self._exponents = _exponents(config.head_dim).to(device)
        else:
            positions = torch.arange(config.extended_max_position, device=device)
            self._table = self._rotation(positions, inverse_frequencies(config).to(device))

    def __call__(self, positions: Tensor, sequence_lengths: Tensor) -> Rotation:
        """Rotations in float32.

        :param positions: ``[tokens]`` int64, from 0, below the configuration's ``extended_max_position``.
        :param sequence_lengths: ``[tokens]`` int64, the length of its sequence when the token was first seen: the whole
            prompt's for a prompt token, ``position + 1`` for a generated one. Only ``dynamic`` looks at it.
        """
        if self._config.scaling == "dynamic":
            return self._rotation(positions, self._dynamic_frequencies(sequence_lengths))
        return Rotation(*(part.index_select(0, positions) for part in self._table))

    def write(self, positions: Tensor, sequence_lengths: Tensor, out: Rotation) -> None:
        """The same rotations, into memory that is there."""
        if self._config.scaling == "dynamic":
            for part, computed in zip(out, self(positions, sequence_lengths), strict=True):
                part.copy_(computed)
        else:
            for part, table in zip(out, self._table, strict=True):
                torch.index_select(table, 0, positions, out=part)

    def _rotation(self, positions: Tensor, frequencies: Tensor) -> Rotation:
        angles = positions[:, None].float() * frequencies
        return Rotation(angles.cos() * self._amplitude, angles.sin() * self._amplitude)

    def _dynamic_frequencies(self, sequence_lengths: Tensor) -> Tensor:
        """NTK-aware frequencies per token, ``[tokens, head_dim / 2]``: the base grows with the sequence."""
        config = self._config
        length = sequence_lengths.clamp_min(config.max_position).float()
        stretch = config.factor * length / config.max_position - (config.factor - 1)
        base = config.theta * stretch ** (config.head_dim / (config.head_dim - 2))
        return 1.0 / base[:, None] ** self._exponents


def inverse_frequencies(config: RotaryConfig) -> Tensor:
    """Radians per position of each rotated pair, ``[head_dim / 2]`` float32."""
    frequencies: Tensor = 1.0 / config.theta ** _exponents(config.head_dim)
    if config.scaling == "linear":
        return frequencies / config.factor
    if config.scaling == "llama3":
        return _llama3_frequencies(config, frequencies)
    if config.scaling == "yarn":
        return _yarn_frequencies(config, frequencies)
    return frequencies


def attention_amplitude(config: RotaryConfig) -> float:
    """The factor on cosine and sine with which YaRN sharpens attention over long contexts; 1 otherwise."""
    if config.scaling != "yarn":
        return 1.0
    if config.attention_factor is not None:
        return config.attention_factor
    if config.mscale and config.mscale_all_dim:
        return _yarn_amplitude(config.factor, config.mscale) / _yarn_amplitude(config.factor, config.mscale_all_dim)
    return _yarn_amplitude(config.factor, 1.0)


def _exponents(head_dim: int) -> Tensor:
    return torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim


def _llama3_frequencies(config: RotaryConfig, frequencies: Tensor) -> Tensor:
    """Llama 3.1: short wavelengths stay, long ones are divided by the factor, those between are blended by how often
    they turn within the original context."""
    turns = config.original_max_position * frequencies / (2 * math.pi)
    low, high = config.low_frequency_factor, config.high_frequency_factor
    keep = ((turns - low) / (high - low)).clamp(0, 1)
    return frequencies * (keep + (1 - keep) / config.factor)


def _yarn_frequencies(config: RotaryConfig, frequencies: Tensor) -> Tensor:
    """YaRN (Peng et al. 2023, arXiv 2309.00071): pairs that turn more than ``beta_fast`` times in the original context
    stay, those that turn less than ``beta_slow`` times are divided by the factor, with a linear ramp between."""
    low, high = (_yarn_dimension(config, turns) for turns in (config.beta_fast, config.beta_slow))
    if config.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, config.head_dim - 1)
    width = high - low if high != low else 0.001
    stretch = ((torch.arange(config.head_dim // 2, dtype=torch.float32) - low) / width).clamp(0, 1)
    return frequencies * (1 - stretch) + frequencies / config.factor * stretch


def _yarn_dimension(config: RotaryConfig, turns: float) -> float:
    """The (fractional) pair that turns this often within the original context."""
    wavelength = config.original_max_position / (turns * 2 * math.pi)
    return config.head_dim * math.log(wavelength) / (2 * math.log(config.theta))


def _yarn_amplitude(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0
