"""Device, dtype and thread choices."""

from __future__ import annotations

import os

import pytest
import torch

from kernels.gpu import Device, standing_in
from serving_image.errors import StartupError
from serving_image.runtime.device import available_cores, choose_cache_dtype, choose_device, choose_dtype

CPU = torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_asking_for_a_gpu_where_there_is_none_is_refused() -> None:
    with pytest.raises(StartupError, match="--device cpu"):
        choose_device("cuda")
    assert choose_device("auto") == CPU


def test_auto_keeps_values_exact_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    for stored in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        assert choose_dtype("auto", stored, CPU) == torch.float32
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert choose_dtype("auto", torch.bfloat16, CPU) == torch.bfloat16
    assert choose_dtype("auto", torch.float16, CPU) == torch.float32


def test_a_cache_of_fp8_needs_a_gpu_that_has_it() -> None:
    assert choose_cache_dtype("auto", CPU) is None
    with pytest.raises(StartupError, match="for GPUs"):
        choose_cache_dtype("fp8", CPU)
    with standing_in(Device(89, 76)):
        assert choose_cache_dtype("fp8", CPU) == torch.float8_e4m3fn
        assert choose_cache_dtype("auto", CPU) is None
    with standing_in(Device(80, 108)), pytest.raises(StartupError, match=r"this one has 8\.0"):
        choose_cache_dtype("fp8", CPU)


def test_a_stated_dtype_is_used() -> None:
    assert choose_dtype("bfloat16", torch.float32, CPU) == torch.bfloat16
    assert choose_dtype("float32", torch.bfloat16, CPU) == torch.float32


def test_cores_are_bounded_by_affinity() -> None:
    allowed = os.sched_getaffinity(0)
    assert 1 <= available_cores() <= len(allowed)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert available_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
