"""What every Triton form shares: which tensors they serve, on what device, with which tile shapes."""

from __future__ import annotations

from kernels.gpu.device import Device, device_of, serves, standing_in
from kernels.gpu.tiles import tile_shape, trying

__all__ = ["Device", "device_of", "serves", "standing_in", "tile_shape", "trying"]
