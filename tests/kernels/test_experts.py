"""The experts of a layer, taken in one by one, in every CPU layout against the definition of a mixture."""

from __future__ import annotations

import math
from itertools import product
from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels import moe
from kernels.linear import EXACT, INT8, ExpertWeights, Layout
from kernels.linear.reference import int8_linear
from kernels.moe import GEGLU_TANH, GPT_OSS, SWIGLU, GatedActivation, Router, Routing, reference
from kernels.native import library
from kernels.native.program import Arena, Program

CPU = torch.device("cpu")
SEEDS = st.integers(0, 2**31)
#: Of the largest value, for one element, and a third of that for the norm.
TOLERANCES = {torch.float32: 5e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}
compiled = pytest.mark.skipif(not library.processor_suffices(), reason="needs a processor with AVX512-BF16")


def _random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Mixture(NamedTuple):
    """The tensors of all experts, as :func:`kernels.moe.experts_forward` takes them."""

    gate_up: torch.Tensor
    down: torch.Tensor
    gate_up_bias: torch.Tensor | None
    down_bias: torch.Tensor | None
    activation: GatedActivation

    @classmethod
    def random(
        cls,
        seed: int,
        sizes: tuple[int, int, int],
        dtype: torch.dtype,
        activation: GatedActivation = SWIGLU,
        *,
        biased: bool = False,
    ) -> Mixture:
        experts, hidden, intermediate = sizes
        gate_up = _random(seed, experts, 2 * intermediate, hidden).div(math.sqrt(hidden)).to(dtype)
        down = _random(seed + 1, experts, hidden, intermediate).div(math.sqrt(intermediate)).to(dtype)
        if not biased:
            return cls(gate_up, down, None, None, activation)
        biases = (
            _random(seed + 2, experts, 2 * intermediate).to(dtype),
            _random(seed + 3, experts, hidden).to(dtype),
        )
        return cls(gate_up, down, *biases, activation)

    def taken_in(self, layout: Layout) -> ExpertWeights:
        experts, hidden, intermediate = self.down.shape
        biased = self.down_bias is not None
        weights = layout.experts(
            experts, hidden, intermediate, self.down.dtype, CPU, activation=self.activation, biases=biased
        )
        # In no order: a checkpoint names them in one that depends on how it was split.
        for index in sorted(range(experts), key=lambda index: (index * 7) % 11):
            weights.set_down(index, self.down[index].clone(), None if self.down_bias is None else self.down_bias[index])
        for index in range(experts):
            bias = None if self.gate_up_bias is None else self.gate_up_bias[index]
            weights.set_gate_up(index, self.gate_up[index].clone(), bias)
        return weights

    def in_int8(self, x: torch.Tensor, expert: int) -> torch.Tensor:
        """What an expert makes of one row if both sides of its products are rounded first."""
        gate_up = int8_linear(x, self.gate_up[expert])
        if self.gate_up_bias is not None:
            gate_up += self.gate_up_bias[expert].float()
        down = int8_linear(reference.activate(gate_up, self.activation).to(x.dtype), self.down[expert])
        return (down if self.down_bias is None else down + self.down_bias[expert].float())[0]

    def expected(self, x: torch.Tensor, routing: Routing, residual: torch.Tensor | None) -> torch.Tensor:
        return reference.experts_forward(
            x,
            self.gate_up,
            self.down,
            routing,
            self.activation,
            gate_up_bias=self.gate_up_bias,
            down_bias=self.down_bias,
            residual=residual,
        )


def _routing(seed: int, tokens: int, num_experts: int, top_k: int) -> Routing:
    """With a favourite, so that some experts receive nothing and one receives most."""
    logits = _random(seed, tokens, num_experts) + 3 * (torch.arange(num_experts) % 5 == 1)
    return moe.route(logits, Router(top_k, renormalise=True))


def _rows(routing: Routing, rows: list[int]) -> Routing:
    return Routing(routing.weights[rows].contiguous(), routing.experts[rows].contiguous())


CASES = {
    "seed": SEEDS,
    "tokens": st.sampled_from([0, 1, 2, 7, 40]),
    "crowd": st.sampled_from([(8, 2), (4, 4), (20, 3), (1, 1)]),
    "sizes": st.sampled_from([(64, 48), (36, 20), (132, 7), (96, 130)]),
    "activation": st.sampled_from([SWIGLU, GEGLU_TANH, GPT_OSS, GatedActivation("relu", limit=0.5)]),
    "terms": st.tuples(st.booleans(), st.booleans()),
}


@pytest.mark.parametrize("form", ["compiled", "plain torch"])
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(**CASES, dtype=st.sampled_from(list(TOLERANCES)))
def test_experts_in_the_dtype_they_have(
    *,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    seed: int,
    dtype: torch.dtype,
    tokens: int,
    crowd: tuple[int, int],
    sizes: tuple[int, int],
    activation: GatedActivation,
    terms: tuple[bool, bool],
) -> None:
    """Experts that receive nothing hold NaN."""
    (num_experts, top_k), (biased, added) = crowd, terms
    mixture = Mixture.random(seed, (num_experts, *sizes), dtype, activation, biased=biased)
    routing = _routing(seed + 5, tokens, num_experts, top_k)
    x = _random(seed + 6, tokens, sizes[0]).to(dtype)
    residual = _random(seed + 7, tokens, sizes[0]).to(dtype) if added else None
    expected = mixture.expected(x, routing, residual)
    idle = torch.ones(num_experts, dtype=torch.bool).scatter(0, routing.experts.flatten().long(), False)
    mixture.gate_up[idle], mixture.down[idle] = torch.nan, torch.nan
    with monkeypatch.context() as patch:
        if form == "plain torch":
            patch.setattr(library, "load", lambda: None)
        out = mixture.taken_in(EXACT).forward(x, routing, residual)
    assert out.dtype == dtype
    error, expected = (out.float() - expected.float()), expected.float()
    assert error.norm() <= TOLERANCES[dtype] / 3 * expected.norm()
    assert tokens == 0 or error.abs().max() <= TOLERANCES[dtype] * expected.abs().max()


@compiled
@settings(deadline=None, max_examples=40)
@given(**CASES, dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_experts_in_int8(
    *,
    seed: int,
    dtype: torch.dtype,
    tokens: int,
    crowd: tuple[int, int],
    sizes: tuple[int, int],
    activation: GatedActivation,
    terms: tuple[bool, bool],
) -> None:
    """The same as rounding both sides of each product first; a value half-way may fall to either side."""
    (num_experts, top_k), (biased, added) = crowd, terms
    mixture = Mixture.random(seed, (num_experts, *sizes), dtype, activation, biased=biased)
    routing = _routing(seed + 5, tokens, num_experts, top_k)
    x = _random(seed + 6, tokens, sizes[0]).to(dtype)
    residual = _random(seed + 7, tokens, sizes[0]).to(dtype) if added else None
    expected = torch.zeros(tokens, sizes[0]) if residual is None else residual.float().clone()
    for token, slot in product(range(tokens), range(top_k)):
        term = mixture.in_int8(x[token][None], int(routing.experts[token, slot]))
        expected[token] += term * routing.weights[token, slot]
    error = mixture.taken_in(INT8).forward(x, routing, residual).float() - expected
    assert error.norm() <= 0.02 * expected.norm()


@compiled
@pytest.mark.parametrize("layout", [EXACT, INT8], ids=["exact", "int8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_token_is_the_same_in_any_company_and_with_any_number_of_threads(layout: Layout, dtype: torch.dtype) -> None:
    weights = Mixture.random(0, (6, 64, 80), dtype, biased=True).taken_in(layout)
    # 800 of one expert's choices: more rows than are worked on together.
    tokens = 900
    routing, x = _routing(1, tokens, 6, 2), _random(2, tokens, 64).to(dtype)
    together = weights.forward(x, routing, x)
    for rows in ([0], [899, 3], list(range(40, 90)), list(range(899, -1, -1))):
        assert torch.equal(weights.forward(x[rows], _rows(routing, rows), x[rows]), together[rows])
    for threads in (2, 5):
        library.set_threads(threads)
        try:
            for _ in range(5):
                assert torch.equal(weights.forward(x, routing, x), together)
        finally:
            library.set_threads(1)


@compiled
@pytest.mark.parametrize("layout", [EXACT, INT8], ids=["exact", "int8"])
def test_a_replay_routes_anew(layout: Layout) -> None:
    """The experts of a replay are not those of the recording."""
    weights = Mixture.random(0, (8, 64, 48), torch.bfloat16, biased=True).taken_in(layout)
    x, router = _random(1, 3, 64).to(torch.bfloat16), Router(2, "sigmoid", renormalise=True, groups=4, top_groups=2)
    gate, bias = layout.weight(_random(2, 8, 64).to(torch.bfloat16)), _random(3, 8)

    def layer() -> torch.Tensor:
        return weights.forward(x, moe.route(gate.multiply(x, wide=True), router, bias), x)

    program = Program(layer, Arena(1 << 14))
    seen = set()
    for seed in range(10, 20):
        x.copy_(_random(seed, 3, 64))
        seen.add(tuple(moe.route(gate.multiply(x, wide=True), router, bias).experts.flatten().tolist()))
        assert torch.equal(program.replay(), layer())
    assert len(seen) > 5


RULES = st.sampled_from(
    [
        Router(2, renormalise=True),
        Router(8, scaling=2.5),
        Router(6, groups=4, top_groups=2),
        Router(4, "sigmoid", renormalise=True, groups=8, top_groups=3, group_best=2, scaling=1.5),
        Router(3, "sigmoid"),
        Router(2, "sparsemixer", jitter=0.1),
    ]
)


@compiled
@settings(deadline=None, max_examples=80)
@given(
    seed=SEEDS,
    rule=RULES,
    tokens=st.sampled_from([0, 1, 5, 70]),
    num_experts=st.sampled_from([16, 24, 160]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    biased=st.booleans(),
    spread=st.sampled_from([0.1, 1.0, 30.0]),
)
def test_compiled_routing(
    seed: int, rule: Router, tokens: int, num_experts: int, dtype: torch.dtype, biased: bool, spread: float
) -> None:
    logits = (spread * _random(seed, tokens, num_experts)).to(dtype)
    bias = _random(seed + 1, num_experts) / 8 if biased and rule.scoring != "sparsemixer" else None
    ours, theirs = moe.route(logits, rule, bias), reference.route(logits, rule, bias)
    close = {"rtol": 2e-5, "atol": 1e-7}
    torch.testing.assert_close(ours.weights, theirs.weights, **close)
    if rule.groups == 1 and bias is None:
        assert torch.equal(ours.experts, theirs.experts)
    else:
        # Scores that differ by a rounding may fall into another order.
        best = ours.experts.sort(-1).values == theirs.experts.sort(-1).values
        assert best.float().mean() > 0.97 or tokens < 5


def test_what_does_not_fit_an_expert_is_refused() -> None:
    biased = EXACT.experts(2, 8, 6, torch.float32, CPU, activation=SWIGLU, biases=True)
    plain = EXACT.experts(2, 8, 6, torch.float16, CPU, activation=SWIGLU, biases=False)
    gate_up, down = torch.zeros(12, 8), torch.zeros(8, 6)
    for weights in (biased, plain):
        with pytest.raises(ValueError, match="no expert 2: there are 2"):
            weights.set_gate_up(2, gate_up, None)
        with pytest.raises(ValueError, match=r"\[8, 6\]; \[12, 8\] is needed"):
            weights.set_gate_up(0, down, None)
        with pytest.raises(ValueError, match=r"\[12, 8\]; \[8, 6\] is needed"):
            weights.set_down(0, gate_up, None)
    with pytest.raises(ValueError, match="needs a bias"):
        biased.set_down(0, down)
    with pytest.raises(ValueError, match=r"\[6\]; \[12\] is needed"):
        biased.set_gate_up(0, gate_up, torch.zeros(6))
    with pytest.raises(ValueError, match="has no bias"):
        plain.set_down(0, down, torch.zeros(8))


@compiled
def test_rows_that_do_not_fit_compiled_experts_are_refused() -> None:
    weights = Mixture.random(0, (4, 8, 6), torch.float32).taken_in(EXACT)
    x, routing = _random(1, 3, 8), _routing(2, 3, 4, 2)
    weights.forward(x, routing)
    wrong: list[tuple[torch.Tensor, Routing, torch.Tensor | None]] = [
        (x[:, :6], routing, None),
        (x.bfloat16(), routing, None),
        (x[:2], routing, None),
        (x, Routing(routing.weights, routing.experts.long()), None),
        (x, Routing(routing.weights[:, :1], routing.experts), None),
        (x, Routing(routing.weights.t().contiguous().t(), routing.experts.t().contiguous().t()), None),
        (x, routing, x.bfloat16()),
    ]
    for arguments in wrong:
        with pytest.raises(ValueError, match=r"fit|needed|contiguous"):
            weights.forward(*arguments)


@pytest.mark.parametrize(("hidden", "dtype"), [(10, torch.float32), (8, torch.float16)])
def test_int8_experts_that_nothing_multiplies_are_refused(hidden: int, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match="compiled CPU kernels"):
        INT8.experts(4, hidden, 6, dtype, CPU, activation=SWIGLU, biases=False)


@pytest.mark.parametrize("layout", [EXACT, pytest.param(INT8, marks=compiled)], ids=["exact", "int8"])
def test_experts_take_no_more_than_their_weights_and_keep_nothing_of_the_source(layout: Layout) -> None:
    gate_up, down = _random(0, 4, 64, 64).bfloat16(), _random(1, 4, 64, 32).bfloat16()
    mixture = Mixture(gate_up, down, None, None, SWIGLU)
    weights = mixture.taken_in(layout)
    size = gate_up.numel() + down.numel()
    assert weights.nbytes == (2 * size if layout is EXACT else size + 8 * 4 * (64 + 64))
    x, routing = _random(2, 5, 64).bfloat16(), _routing(3, 5, 4, 2)
    before = weights.forward(x, routing)
    gate_up.fill_(torch.nan)
    down.fill_(torch.nan)
    assert torch.equal(weights.forward(x, routing), before)
