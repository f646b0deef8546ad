"""A product whose tile does not fit into the registers of its warps: what the inspection must notice.

Run as a program without ``TRITON_INTERPRET``, it prints what the inspection finds in it, and in one that fits, as JSON.
"""

from __future__ import annotations

import json
from dataclasses import asdict

import torch
import triton
import triton.language as tl

from kernels.gpu import Device
from kernels.gpu.compile_only import compiling_for
from kernels.gpu.inspection import inspect

DEPTH = 1024


@triton.jit
def product(a, b, c, depth, BLOCK_M: tl.constexpr):
    rows, columns = tl.arange(0, BLOCK_M), tl.arange(0, 128)
    inner = tl.arange(0, 64)
    total = tl.zeros((BLOCK_M, 128), tl.float32)
    for start in range(0, depth, 64):
        left = tl.load(a + rows[:, None] * depth + (start + inner)[None, :])
        right = tl.load(b + (start + inner)[:, None] * 128 + columns[None, :])
        total = tl.dot(left, right, total)
    tl.store(c + rows[:, None] * 128 + columns[None, :], total)


def main() -> None:
    a, b = torch.empty(256, DEPTH, dtype=torch.bfloat16), torch.empty(DEPTH, 128, dtype=torch.bfloat16)
    found = {}
    for capability in (80, 90):
        with compiling_for(Device(capability, 132)) as launched:
            for block_m in (64, 256):
                product[(1,)](a, b, torch.empty(256, 128), DEPTH, block_m, num_warps=4, num_stages=3)
        for name, launch in zip(("fits", "oversized"), launched, strict=True):
            found[f"{name} {capability}"] = {**asdict(inspect(launch.cubin)), "shared": launch.shared}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
