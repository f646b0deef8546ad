"""One thread, because threads that wait for each other over tiny operations take seconds on a busy machine; and the
device that Triton forms are tested on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from kernels.gpu import Device, standing_in


@pytest.fixture(autouse=True, scope="package")
def single_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def gpu() -> Iterator[torch.device]:
    """Where Triton forms run: a GPU if there is one, else the CPU under Triton's interpreter, an H200 standing in."""
    if torch.cuda.is_available():
        yield torch.device("cuda")
        return
    with standing_in(Device(90, 132)):
        yield torch.device("cpu")
