"""Rotary frequencies under every scaling that checkpoints use.

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

RotaryScaling = Literal["default", "linear", "dynamic", "llama3", "yarn", "longrope"]


@dataclass(frozen=True, kw_only=True)
class RotaryConfig:
    """Rotary embedding of a layer. Fields that a scaling does not use keep their defaults.

    ``head_dim`` counts the elements of a head that are rotated, which may be fewer than all. ``max_position`` is the
    context that ``dynamic`` starts to stretch beyond; ``original_max_position`` the context before ``llama3``, ``yarn``
    or ``longrope`` extended it. ``attention_factor`` None means: the scaling's formula.
    ``short_factors`` and ``long_factors`` are ``longrope``'s, one for each rotated pair; ``short_amplitude`` and
    ``long_amplitude`` go before its formula (PhiMoE).
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
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()
    short_amplitude: float | None = None
    long_amplitude: float | None = None

    @property
    def depends_on_lengths(self) -> bool:
        """Whether a token's rotation depends on the length of its sequence."""
        return self.scaling in ("dynamic", "longrope")

    @property
    def extended_max_position(self) -> int:
        """The longest context in tokens that the model is meant for.

        Checkpoints with ``linear``, ``llama3`` and ``longrope`` scaling state the extended context as their maximum;
        ``dynamic`` ones state the context before stretching; ``yarn`` ones are seen either way.
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
        self._device = device
        if config.scaling == "dynamic":
            # On the device now: a copy later would wait for it, and a CUDA graph cannot hold one.
            self._exponents = _exponents(config.head_dim).to(device)
        else:
            positions = torch.arange(config.extended_max_position, device=device)
            tables = [_rotation(positions, part.frequencies.to(device), part.amplitude) for part in _turns(config)]
            self._table = Rotation(*(torch.cat(parts) for parts in zip(*tables, strict=True)))

    def __call__(self, positions: Tensor, sequence_lengths: Tensor) -> Rotation:
        """Rotations in float32.

        :param positions: ``[tokens]`` int64, from 0, below the configuration's ``extended_max_position``.
        :param sequence_lengths: ``[tokens]`` int64, the length of its sequence when the token was first seen: the whole
            prompt's for a prompt token, ``position + 1`` for a generated one. Only ``dynamic`` and ``longrope`` look at
            it.
        """
        if self._config.scaling == "dynamic":
            return _rotation(positions, self._dynamic_frequencies(sequence_lengths), 1.0)
        rows = self._rows(positions, sequence_lengths)
        return Rotation(*(part.index_select(0, rows) for part in self._table))

    def empty(self, rows: int) -> Rotation:
        """Memory for the rotations of ``rows`` tokens."""
        shape, device = (rows, self._config.head_dim // 2), self._device
        return Rotation(torch.empty(shape, device=device), torch.empty(shape, device=device))

    def write(self, positions: Tensor, sequence_lengths: Tensor, out: Rotation) -> None:
        """The same rotations, into memory that is there."""
        if self._config.scaling == "dynamic":
            for part, computed in zip(out, self(positions, sequence_lengths), strict=True):
                part.copy_(computed)
        else:
            rows = self._rows(positions, sequence_lengths)
            for part, table in zip(out, self._table, strict=True):
                torch.index_select(table, 0, rows, out=part)

    def _rows(self, positions: Tensor, sequence_lengths: Tensor) -> Tensor:
        """Rows of the table. That of ``longrope`` has two halves: for short sequences and for long ones."""
        if self._config.scaling != "longrope":
            return positions
        is_long = sequence_lengths > self._config.original_max_position
        return positions + is_long * self._config.extended_max_position

    def _dynamic_frequencies(self, sequence_lengths: Tensor) -> Tensor:
        """NTK-aware frequencies per token, ``[tokens, head_dim / 2]``: the base grows with the sequence."""
        config = self._config
        length = sequence_lengths.clamp_min(config.max_position).float()
        stretch = config.factor * length / config.max_position - (config.factor - 1)
        base = config.theta * stretch ** (config.head_dim / (config.head_dim - 2))
        return 1.0 / base[:, None] ** self._exponents


class NoRotation:
    """For layers whose queries and keys are not rotated."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self, positions: Tensor, _: Tensor) -> Rotation:
        """Rotations of nothing."""
        return self.empty(len(positions))

    def empty(self, rows: int) -> Rotation:
        """``[rows, 0]``, twice."""
        return Rotation(torch.empty(rows, 0, device=self._device), torch.empty(rows, 0, device=self._device))

    def write(self, positions: Tensor, sequence_lengths: Tensor, out: Rotation) -> None:
        """Nothing is there to be written."""


def rotary_embedding(config: RotaryConfig | None, device: torch.device) -> RotaryEmbedding | NoRotation:
    """The rotations of a layer."""
    return NoRotation(device) if config is None else RotaryEmbedding(config, device)


def _rotation(positions: Tensor, frequencies: Tensor, amplitude: float) -> Rotation:
    angles = positions[:, None].float() * frequencies
    return Rotation(angles.cos() * amplitude, angles.sin() * amplitude)


class _Turns(NamedTuple):
    """Radians per position of each rotated pair, and the factor on cosine and sine."""

    frequencies: Tensor
    amplitude: float


def _turns(config: RotaryConfig) -> list[_Turns]:
    """One table's, or ``longrope``'s for short sequences and for long ones."""
    frequencies, amplitude = inverse_frequencies(config), attention_amplitude(config)
    if config.scaling != "longrope":
        return [_Turns(frequencies, amplitude)]
    return [
        _Turns(frequencies / torch.tensor(factors), amplitude if own is None else own)
        for factors, own in (
            (config.short_factors, config.short_amplitude),
            (config.long_factors, config.long_amplitude),
        )
    ]


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
    """The factor on cosine and sine with which YaRN and LongRoPE sharpen attention over long contexts; 1 otherwise."""
    if config.scaling not in ("yarn", "longrope"):
        return 1.0
    if config.attention_factor is not None:
        return config.attention_factor
    if config.scaling == "longrope":
        return _longrope_amplitude(config.factor, config.original_max_position)
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


def _longrope_amplitude(factor: float, original_max_position: int) -> float:
    """Ding et al. 2024, arXiv 2402.13753."""
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original_max_position))


def _yarn_amplitude(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0
