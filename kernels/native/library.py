"""The compiled kernels: a small C++ library with its own threads, called through ctypes.

It is written for x86-64 with AVX-512, BF16 and VNNI (AMD from Zen 4, Intel from Sapphire Rapids). Where the processor
is another, or the library was not built, :func:`load` gives None and the plain torch forms compute instead. ``python -m
kernels.native`` builds it; the set-up does so where there is a compiler.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import c_char_p, c_float, c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, bfloat16, dtype, float32

from kernels.native.build import library_path

_REQUIRED_FLAGS = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16", "avx512_vnni"})
_SUFFIXES = {float32: "f32", bfloat16: "bf16"}

_P, _I = c_void_p, c_int64
_LINEAR = [_P, _I, _I, _I, _P, _P, _P, _P]
_GATED = [_P, _I, _I, _I, _P, _I, _P]
_RMS_NORM = [_P, _P, _P, _I, _I, c_float, _P]
_LAYER_NORM = [_P, _P, _P, _P, _I, _I, c_float, _P]
_ROUTE = [_P, _I, _I, _P, _I, _I, _I, _I, _I, _I, c_float, c_float, _P, _P]
_GATE_EXPERTS = [_P, _I, _I, _P, _P, _I, _I, _P, _P, _I, c_float, c_float, c_float, _P]
_JOIN_EXPERTS = [_P, _I, _I, _P, _P, _I, _I, _P, _P, _P, _P, _P, _P]
_PACK = [_P, _I, _I, _P]
_ROTATE = [_P, _I, _I, _I, _I, _I, _I, *[_P] * 9, c_float, _I]
_ATTENTION = [_P, _I, *[_P] * 5, *[_I] * 6, c_float, _I, c_float, _P, _P, _P]
_SIGNATURES: dict[str, list[Any]] = {
    "pack_f32": _PACK,
    "pack_bf16": _PACK,
    "pack_int8_f32": _PACK,
    "pack_int8_bf16": _PACK,
    "linear_f32": _LINEAR,
    "linear_bf16": _LINEAR,
    "linear_bf16_f32": _LINEAR,
    "linear_int8_f32": _LINEAR,
    "linear_int8_bf16": _LINEAR,
    "linear_int8_bf16_f32": _LINEAR,
    "gated_f32": _GATED,
    "gated_bf16": _GATED,
    "gated_int8_f32": _GATED,
    "gated_int8_bf16": _GATED,
    "rms_norm_f32": _RMS_NORM,
    "rms_norm_bf16": _RMS_NORM,
    "rms_norm_bf16_f32": _RMS_NORM,
    "layer_norm_f32": _LAYER_NORM,
    "layer_norm_bf16": _LAYER_NORM,
    "layer_norm_bf16_f32": _LAYER_NORM,
    "activate_f32": [_P, _I, _I, _P],
    "activate_bf16": [_P, _I, _I, _P],
    "gate_f32": [_P, _I, _I, _I, _P],
    "gate_bf16": [_P, _I, _I, _I, _P],
    "add_f32": [_P, _P, _P, _I, _I, _P],
    "add_bf16": [_P, _P, _P, _I, _I, _P],
    "clip_f32": [_P, _I, c_float],
    "clip_bf16": [_P, _I, c_float],
    "xielu_f32": [_P, _I, c_float, c_float, c_float, c_float, _P],
    "xielu_bf16": [_P, _I, c_float, c_float, c_float, c_float, _P],
    "rotate_and_store_f32": _ROTATE,
    "rotate_and_store_bf16": _ROTATE,
    "attention_f32": _ATTENTION,
    "attention_bf16": _ATTENTION,
    "route_f32": _ROUTE,
    "route_bf16": _ROUTE,
    "sort_choices": [_P, _I, _I, _P, _P],
    "gate_experts_f32": _GATE_EXPERTS,
    "gate_experts_bf16": _GATE_EXPERTS,
    "gate_experts_int8_f32": _GATE_EXPERTS,
    "gate_experts_int8_bf16": _GATE_EXPERTS,
    "join_experts_f32": _JOIN_EXPERTS,
    "join_experts_bf16": _JOIN_EXPERTS,
    "join_experts_int8_f32": _JOIN_EXPERTS,
    "join_experts_int8_bf16": _JOIN_EXPERTS,
    "set_threads": [c_int],
    "replay": [_P, _I],
}


@cache
def processor_suffices() -> bool:
    """Whether this processor has the instructions that the library is written for, be it built or not."""
    return _processor_flags() >= _REQUIRED_FLAGS


@cache
def load() -> ctypes.CDLL | None:
    """The loaded library; None where it cannot run or was not built."""
    path = library_path()
    if not (processor_suffices() and path.exists()):
        return None
    loaded = ctypes.CDLL(str(path))
    for name, arguments in _SIGNATURES.items():
        function = getattr(loaded, f"slipway_{name}")
        function.argtypes, function.restype = arguments, None
    loaded.slipway_recordable.argtypes, loaded.slipway_recordable.restype = [c_char_p], c_void_p
    return loaded


def supports(x: Tensor) -> bool:
    """Whether the library computes on tensors like this one."""
    return x.device.type == "cpu" and x.dtype in _SUFFIXES and load() is not None


def set_threads(count: int) -> None:
    """Set how many threads the library's kernels use; not while one runs."""
    loaded = load()
    if loaded is not None:
        loaded.slipway_set_threads(count)


class Kernel:
    """One function of the library.

    :ivar name: its name there.
    :ivar recordable: what a recorded call of it begins with, see :mod:`kernels.native.program`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        loaded: Any = load()
        self._call: Callable[..., None] = getattr(loaded, name)
        self.recordable: int | None = loaded.slipway_recordable(name.encode())

    def __call__(self, *arguments: float | None) -> None:
        """Call it; addresses are whole numbers, or None for an operand that is not there."""
        if _recorder is not None:
            _recorder.add(self, arguments)
        self._call(*arguments)


class Recorder(Protocol):
    """What is told of every call, and gives the memory for results, while it is the recorder."""

    def add(self, kernel: Kernel, arguments: tuple[float | None, ...], /) -> None: ...

    def empty(self, shape: tuple[int, ...], kind: dtype, /) -> Tensor: ...


_recorder: Recorder | None = None


@contextmanager
def recorded_by(recorder: Recorder) -> Iterator[None]:
    """Let ``recorder`` take down the calls made in this block, by one thread; the calls are made as well."""
    global _recorder  # noqa: PLW0603 - an argument would have to pass through every operation of every model
    _recorder = recorder
    try:
        yield
    finally:
        _recorder = None


def call_replay(calls: int, count: int) -> None:
    """Make recorded calls; see :mod:`kernels.native.program`."""
    loaded = load()
    if loaded is not None:
        loaded.slipway_replay(calls, count)


@cache
def function(name: str, kind: dtype) -> Kernel:
    """The library's function of this name for elements of this dtype."""
    return Kernel(f"slipway_{name}_{_SUFFIXES[kind]}")


@cache
def untyped_function(name: str) -> Kernel:
    """The same for a function that computes with no elements."""
    return Kernel(f"slipway_{name}")


@cache
def mixed_function(name: str, kind: dtype, other: dtype) -> Kernel:
    """The same for a function of which an operand, or the result, may be of another dtype."""
    if kind == other:
        return function(name, kind)
    return function(f"{name}_{_SUFFIXES[kind]}", other)


def result(shape: tuple[int, ...], kind: dtype) -> Tensor:
    """Memory for a kernel's result."""
    return torch.empty(shape, dtype=kind) if _recorder is None else _recorder.empty(shape, kind)


def huge_pages(tensor: Tensor) -> None:
    """Ask for 2 MiB pages under a tensor that was allocated and not written yet: a product streams all of it, and with
    4 KiB pages the processor spends part of that time looking addresses up. A kernel that refuses changes nothing."""
    page, advise_huge = 4096, 14
    start = -(-tensor.data_ptr() // page) * page
    length = (tensor.data_ptr() + tensor.nbytes - start) // page * page
    if length > 0:
        ctypes.CDLL(None).madvise(c_void_p(start), ctypes.c_size_t(length), advise_huge)


def _processor_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.split(":")[1].split() for line in lines if line.startswith("flags")), ()))
