"""What a program of recorded calls refuses to record, because a replay would repeat a stale value."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from kernels.activation import activate
from kernels.native import library
from kernels.native.program import Arena, NotRecordable, Program

pytestmark = pytest.mark.skipif(not library.processor_suffices(), reason="needs a processor with AVX512-BF16")

COMPUTED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "a sum": lambda x: x + 1,
    "a sum in place": lambda x: x.add_(1),
    "a copy": lambda x: x.clone(),
    "a copy by turning": lambda x: x.t().contiguous(),
    "a copy by joining": lambda x: x.t().reshape(-1)[None],
    "another dtype": lambda x: x.to(torch.bfloat16),
    "zeros": lambda x: activate(torch.zeros(x.shape), "relu"),
    "a value that Python reads": lambda x: activate(x, "relu") if x[0, 0].item() > 0 else x,
    "what depends on values": lambda x: x[x[:, 0] > 0],
    "an operation made of others": lambda x: torch.nn.functional.linear(x, x),
}

VIEWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "rows": lambda x: x[1:],
    "a half": lambda x: x.view(4, 16).chunk(2, dim=-1)[0].unflatten(1, (2, 4)).flatten(1)[:1],
    "another shape": lambda x: x.reshape(1, -1).unsqueeze(0).squeeze(0),
    "what is there already": lambda x: x.contiguous().to(torch.float32),
    "a row of two": lambda x: x.split([1, 1])[1].unbind(0)[0][None].detach(),
}


@pytest.fixture(params=[False, True], ids=["plain", "inference mode"])
def _mode(request: pytest.FixtureRequest) -> object:
    with torch.inference_mode(request.param):
        yield


@pytest.mark.usefixtures("_mode")
@pytest.mark.parametrize("what", COMPUTED)
def test_what_torch_computes_is_refused(what: str) -> None:
    x = torch.ones(2, 32)
    with pytest.raises(NotRecordable, match=r"torch computes aten\.\w+"):
        Program(lambda: activate(COMPUTED[what](activate(x, "silu")), "relu"), Arena(1 << 12))
    # Nothing is recorded or refused any more.
    assert activate(x + 1, "relu").eq(2).all()


@pytest.mark.usefixtures("_mode")
@pytest.mark.parametrize("view", VIEWS)
def test_views_are_not(view: str) -> None:
    x = torch.ones(2, 32)
    program = Program(lambda: activate(VIEWS[view](x), "relu_squared"), Arena(1 << 12))
    x.copy_(torch.arange(64.0).view(2, 32))
    assert torch.equal(program.replay(), activate(VIEWS[view](x), "relu_squared"))


def test_memory_that_a_recorded_call_writes_is_kept() -> None:
    """The allocator would give the same memory to the next who asks."""
    x = torch.ones(2, 32)

    def compute() -> torch.Tensor:
        scratch = torch.empty(2, 32)
        library.function("activate", torch.float32)(x.data_ptr(), 64, 3, scratch.data_ptr())
        return activate(scratch, "relu_squared")

    program = Program(compute, Arena(1 << 12))
    others = [torch.full((2, 32), 7.0) for _ in range(20)]
    x.fill_(3)
    assert program.replay().eq(9).all()
    assert all(other.eq(7).all() for other in others)


def test_a_kernel_that_cannot_be_recorded_is_named() -> None:
    packed, weight = torch.empty(1024), torch.ones(32, 32)

    def compute() -> torch.Tensor:
        library.function("pack", torch.float32)(weight.data_ptr(), 32, 32, packed.data_ptr())
        return packed

    with pytest.raises(NotRecordable, match="slipway_pack_f32"):
        Program(compute, Arena(64))
