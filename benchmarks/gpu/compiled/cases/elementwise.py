"""Norms, activations and the embedding: what reads and writes every token's hidden state once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import get_args

import torch

from benchmarks.gpu.compiled.case import DTYPES, HOPPER, Case
from kernels.activation import GatedKind, Kind, activate, gated, xielu
from kernels.embedding import embed
from kernels.layer_norm import layer_norm
from kernels.rms_norm import rms_norm

_TOKENS = 64
#: One width of each tile; 2,880 and 12,288 do not fill theirs.
_HIDDEN = (256, 512, 1024, 2048, 2880, 8192, 12_288)


def cases() -> Iterator[Case]:
    """Every dtype at one width; every width in one dtype, for Hopper."""
    for kind in ("bf16", "fp16", "fp32"):
        yield _rms(kind, 4096, residual=False)
        yield _rms(kind, 4096, residual=True)
        yield _layer(kind, 4096, bias=True, residual=True)
    yield _rms("bf16", 4096, residual=True, weight="fp32")
    yield _layer("bf16", 4096, bias=True, residual=True, weight="fp32")
    for hidden in _HIDDEN:
        yield _rms("bf16", hidden, residual=True)._replace(capabilities=HOPPER)
        yield _layer("bf16", hidden, bias=False, residual=False)._replace(capabilities=HOPPER)
    for kind in ("bf16", "fp16", "fp32"):
        yield _activation(f"{kind} gated silu", kind, partial(gated, kind="silu"))
    for gate in get_args(GatedKind)[1:]:
        yield _activation(f"bf16 gated {gate}", "bf16", partial(gated, kind=gate))
    for plain in get_args(Kind):
        yield _activation(f"bf16 {plain}", "bf16", partial(activate, kind=plain))
    for kind in ("bf16", "fp32"):
        yield _activation(f"{kind} xielu", kind, partial(xielu, alpha_p=0.8, alpha_n=0.8, beta=0.5, epsilon=-1e-6))

    for kind in ("bf16", "fp32"):
        yield _embedding(kind)


def _embedding(kind: str) -> Case:
    def call() -> object:
        return embed(torch.empty(_TOKENS, dtype=torch.int64), torch.empty(1024, 4096, dtype=DTYPES[kind]))

    return Case("embedding", kind, call)


def _activation(name: str, kind: str, activation: Callable[[torch.Tensor], object]) -> Case:
    return Case("activation", name, lambda: activation(torch.empty(_TOKENS, 2 * 14_336, dtype=DTYPES[kind])))


def _rms(kind: str, hidden: int, *, residual: bool, weight: str | None = None) -> Case:
    def call() -> object:
        x, scale = _stream(kind, hidden, weight)
        return rms_norm(x, scale, 1e-5, torch.empty_like(x) if residual else None)

    return Case("rms_norm", f"{kind} {hidden}{' residual' * residual}{_of(weight)}", call)


def _layer(kind: str, hidden: int, *, bias: bool, residual: bool, weight: str | None = None) -> Case:
    def call() -> object:
        x, scale = _stream(kind, hidden, weight)
        offset = torch.empty_like(scale) if bias else None
        return layer_norm(x, scale, offset, 1e-5, torch.empty_like(x) if residual else None)

    return Case("layer_norm", f"{kind} {hidden}{' bias' * bias}{' residual' * residual}{_of(weight)}", call)


def _of(weight: str | None) -> str:
    return "" if weight is None else f" weight {weight}"


def _stream(kind: str, hidden: int, weight: str | None) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty(_TOKENS, hidden, dtype=DTYPES[kind]), torch.empty(hidden, dtype=DTYPES[weight or kind])
