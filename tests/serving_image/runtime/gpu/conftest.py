"""A GPU, or one that stands in; and a model small enough for Triton's interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from kernels.gpu import Device, standing_in, trying
from tests.serving_image.checkpoints import write_checkpoint


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer: what is tested here is the same for each."""
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    return write_checkpoint(tmp_path_factory.mktemp("small"), num_hidden_layers=1, **sizes)


@pytest.fixture(autouse=True)
def gpu() -> Iterator[torch.device]:
    """Where the engine runs. A device of two multiprocessors keeps the interpreter's grids small; so does leaving
    products to torch, whose kernels have tests of their own."""
    with ExitStack() as stack:
        if not torch.cuda.is_available():
            stack.enter_context(standing_in(Device(90, 2)))
            stack.enter_context(trying("linear", "few_rows", "rows", {"rows": 0}))
        yield torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True, scope="package")
def single_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
