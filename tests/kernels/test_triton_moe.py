"""Mixtures of experts on a GPU: each Triton form against its reference."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels import moe
from kernels.gpu import trying
from kernels.moe import GEGLU_TANH, GPT_OSS, SWIGLU, GatedActivation, Router, Routing, max_blocks, reference

# NumPy, under Triton's interpreter, says what a GPU computes silently: an infinity less itself, a division by zero.
pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")

SEEDS = st.integers(0, 2**31)
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}


def sampled(examples: int) -> settings:
    return settings(deadline=None, max_examples=examples, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Memory that is set aside holds NaN, or the largest whole number, until something is written there."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def _random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


ROUTERS = {
    "softmax": (Router(2), 7, False),
    "renormalised": (Router(4, renormalise=True), 20, False),
    "with a bias": (Router(3, renormalise=True), 20, True),
    "all experts": (Router(8, renormalise=True), 8, False),
    "one expert": (Router(1, "sigmoid"), 1, False),
    "DeepSeek-V2": (Router(6, groups=8, top_groups=3, scaling=16.0), 40, False),
    "DeepSeek-V3": (
        Router(8, "sigmoid", renormalise=True, groups=8, top_groups=4, group_best=2, scaling=2.5),
        64,
        True,
    ),
    "odd groups": (Router(5, groups=5, top_groups=2, group_best=2), 15, False),
    "PhiMoE": (Router(2, "sparsemixer", jitter=0.01), 16, False),
    "PhiMoE, wide": (Router(2, "sparsemixer", jitter=0.5), 16, False),
}


@pytest.mark.parametrize("name", ROUTERS)
@sampled(8)
@given(seed=SEEDS, tokens=st.sampled_from([1, 3, 70]), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_route(*, gpu: torch.device, name: str, seed: int, tokens: int, dtype: torch.dtype) -> None:
    router, num_experts, biased = ROUTERS[name]
    logits = (3 * _random(seed, tokens, num_experts)).to(dtype)
    bias = _random(seed + 1, num_experts) / 4 if biased else None
    expected = reference.route(logits, router, bias)
    routing = moe.route(logits.to(gpu), router, None if bias is None else bias.to(gpu))
    torch.testing.assert_close(routing.weights.cpu(), expected.weights, rtol=1e-5, atol=1e-6)
    assert torch.equal(routing.experts.cpu(), expected.experts)


@sampled(15)
@given(
    seed=SEEDS,
    router=st.sampled_from(
        [Router(5), Router(5, "sigmoid", groups=4, top_groups=2), Router(5, "sparsemixer", jitter=0.1)]
    ),
    odd=st.sampled_from([torch.nan, torch.inf, -torch.inf, 0.0, -0.0]),
)
def test_choices_differ_and_exist_whatever_the_logits(
    *, gpu: torch.device, seed: int, router: Router, odd: float
) -> None:
    """Few different values, so that there are equal ones, and some that are no numbers."""
    logits = _random(seed, 20, 12).round()
    logits[_random(seed + 1, 20, 12) > 1] = odd
    logits[0] = odd
    routing = moe.route(logits.to(gpu), router)
    assert torch.equal(routing.experts.cpu(), reference.route(logits, router).experts)
    assert all(len(set(row)) == 5 and set(row) <= set(range(12)) for row in routing.experts.tolist())


def test_no_tokens(gpu: torch.device) -> None:
    x = torch.zeros(0, 16, device=gpu)
    routing = moe.route(torch.zeros(0, 4, device=gpu), Router(2))
    assert routing.experts.shape == routing.weights.shape == (0, 2)
    assert moe.sort_tokens(routing.experts, 4, 16).block_experts.numel() == 0
    gate_up, down = torch.zeros(4, 64, 16, device=gpu), torch.zeros(4, 16, 32, device=gpu)
    assert moe.experts_forward(x, gate_up, down, routing).shape == (0, 16)


def _chosen(seed: int, tokens: int, num_experts: int, top_k: int, spread: float) -> torch.Tensor:
    """Choices that differ in a row; with a small spread most tokens choose alike and many experts receive nothing."""
    popularity = torch.arange(num_experts) / num_experts
    return (popularity + spread * _random(seed, tokens, num_experts)).topk(top_k).indices.int()


CROWDS = st.sampled_from(
    [(1, 4, 4), (1, 8, 2), (5, 3, 1), (40, 7, 3), (9, 130, 6), (64, 2, 2), (75, 4, 4), (150, 5, 2)]
)


@sampled(30)
@given(
    seed=SEEDS,
    crowd=CROWDS,
    spread=st.sampled_from([0.0, 0.1, 10.0]),
    block_m=st.sampled_from([16, 32, 128]),
    chunk=st.sampled_from([16, 128, 512]),
)
def test_sort_tokens(
    *, gpu: torch.device, seed: int, crowd: tuple[int, int, int], spread: float, block_m: int, chunk: int
) -> None:
    tokens, num_experts, top_k = crowd
    experts = _chosen(seed, tokens, num_experts, top_k, spread)
    with trying("moe", "sort", "any", {"chunk": chunk, "num_warps": 4}):
        order, block_experts = (part.cpu() for part in moe.sort_tokens(experts.to(gpu), num_experts, block_m))
    expected = reference.sort_tokens(experts, num_experts, block_m)
    assert block_experts.numel() == max_blocks(tokens * top_k, num_experts, block_m)
    assert torch.equal(block_experts, expected.block_experts)
    used = int((block_experts >= 0).sum()) * block_m
    assert torch.equal(order[:used], expected.order[:used])


@sampled(30)
@given(
    seed=SEEDS,
    dtype=st.sampled_from(list(TOLERANCES)),
    crowd=CROWDS,
    spread=st.sampled_from([0.0, 0.1, 10.0]),
    sizes=st.sampled_from([(16, 16), (48, 40), (72, 130), (7, 3)]),
    activation=st.sampled_from([SWIGLU, GEGLU_TANH, GPT_OSS, GatedActivation(limit=0.5)]),
    terms=st.tuples(st.booleans(), st.booleans()),
)
def test_experts_forward(
    *,
    gpu: torch.device,
    seed: int,
    dtype: torch.dtype,
    crowd: tuple[int, int, int],
    spread: float,
    sizes: tuple[int, int],
    activation: GatedActivation,
    terms: tuple[bool, bool],
) -> None:
    """Experts that receive nothing hold NaN."""
    (tokens, num_experts, top_k), (hidden, intermediate), (biased, added) = crowd, sizes, terms
    experts = _chosen(seed, tokens, num_experts, top_k, spread)
    idle = torch.ones(num_experts, dtype=torch.bool).scatter(0, experts.flatten().long(), False)
    routing = Routing(_random(seed + 1, tokens, top_k).softmax(-1), experts)
    x = _random(seed + 2, tokens, hidden).to(dtype)
    gate_up = _random(seed + 3, num_experts, 2 * intermediate, hidden).div(math.sqrt(hidden)).to(dtype)
    down = _random(seed + 4, num_experts, hidden, intermediate).div(math.sqrt(intermediate)).to(dtype)
    optional = {
        "gate_up_bias": _random(seed + 5, num_experts, 2 * intermediate).to(dtype) if biased else None,
        "down_bias": _random(seed + 6, num_experts, hidden).to(dtype) if biased else None,
        "residual": _random(seed + 7, tokens, hidden).to(dtype) if added else None,
    }
    expected = reference.experts_forward(x, gate_up, down, routing, activation, **optional)
    gate_up[idle], down[idle] = torch.nan, torch.nan
    out = moe.experts_forward(
        x.to(gpu),
        gate_up.to(gpu),
        down.to(gpu),
        Routing(*(part.to(gpu) for part in routing)),
        activation,
        **{name: None if term is None else term.to(gpu) for name, term in optional.items()},
    )
    assert out.dtype == dtype
    tolerance = TOLERANCES[dtype]
    torch.testing.assert_close(out.cpu().float(), expected.float(), rtol=tolerance, atol=tolerance)


def test_a_token_is_the_same_in_whatever_company_of_its_size(gpu: torch.device) -> None:
    """Blocks are as high for both batches; only who sits beside the token differs."""
    gate_up, down = _random(0, 4, 64, 48).to(gpu), _random(1, 4, 48, 32).to(gpu)
    x, logits = _random(2, 9, 48).to(gpu), _random(3, 9, 4).to(gpu)
    routing = moe.route(logits, Router(2))
    together = moe.experts_forward(x, gate_up, down, routing)
    turned = Routing(*(part.flip(0).contiguous() for part in routing))
    assert torch.equal(moe.experts_forward(x.flip(0).contiguous(), gate_up, down, turned).flip(0), together)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_graph_routes_tokens_that_were_not_there_when_it_was_captured() -> None:
    gate_up, down = _random(0, 8, 64, 48).cuda(), _random(1, 8, 48, 32).cuda()
    x, logits = _random(2, 40, 48).cuda(), _random(3, 40, 8).cuda()

    def layer() -> torch.Tensor:
        return moe.experts_forward(x, gate_up, down, moe.route(logits, Router(2)))

    layer()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = layer()
    x.copy_(_random(4, 40, 48))
    # All on two experts: other blocks are used than at the capture.
    logits.copy_(torch.arange(8.0).expand(40, 8))
    graph.replay()
    assert torch.equal(out, layer())
