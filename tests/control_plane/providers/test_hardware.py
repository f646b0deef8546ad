"""Reading nvidia-smi's table."""

from __future__ import annotations

from control_plane.providers.local_host.hardware import Gpu, parse_gpus


def test_devices_are_read_and_unreadable_lines_passed_over() -> None:
    csv = (
        "0, GPU-5a1b, NVIDIA H200, 143771, 143300\n"
        "1, GPU-77c0, NVIDIA RTX A6000, 49140, 200\n"
        "2, GPU-dead, NVIDIA T4, [N/A], [N/A]\n"
        "Unable to determine the device handle for GPU 0000:03:00.0\n"
    )
    assert parse_gpus(csv) == [
        Gpu(0, "GPU-5a1b", "NVIDIA H200", 143771 << 20, 143300 << 20),
        Gpu(1, "GPU-77c0", "NVIDIA RTX A6000", 49140 << 20, 200 << 20),
    ]
