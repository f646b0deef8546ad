"""Mixtures of experts on a CPU: what serves there is the reference, held here to Transformers' models."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2TopkRouter
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts, GptOssTopKRouter
from transformers.models.granitemoe.modeling_granitemoe import GraniteMoeTopKRouter
from transformers.models.mixtral.modeling_mixtral import MixtralExperts, MixtralTopKRouter
from transformers.models.phimoe.modeling_phimoe import PhimoeTopKRouter
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeTopKRouter

from kernels import moe
from kernels.moe import GEGLU_TANH, GPT_OSS, SWIGLU, GatedActivation, Router, Routing

TOKENS, EXPERTS, HIDDEN, INTERMEDIATE = 50, 24, 16, 12


def _random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


FAMILIES: dict[str, tuple[Any, Router]] = {
    "Mixtral": (MixtralTopKRouter, Router(2, renormalise=True)),
    "Qwen2-MoE": (Qwen2MoeTopKRouter, Router(4)),
    "gpt-oss": (GptOssTopKRouter, Router(4, renormalise=True)),
    "Granite": (GraniteMoeTopKRouter, Router(8, renormalise=True)),
    "DeepSeek-V2": (DeepseekV2TopkRouter, Router(6, groups=4, top_groups=2, scaling=2.5)),
    "DeepSeek-V3": (
        DeepseekV3TopkRouter,
        Router(8, "sigmoid", renormalise=True, groups=4, top_groups=2, group_best=2, scaling=2.5),
    ),
    "PhiMoE": (PhimoeTopKRouter, Router(2, "sparsemixer", jitter=0.1)),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_families_are_routed_as_by_transformers(family: str) -> None:
    kind, rule = FAMILIES[family]
    config = SimpleNamespace(
        hidden_size=EXPERTS,
        num_local_experts=EXPERTS,
        num_experts=EXPERTS,
        num_experts_per_tok=rule.top_k,
        norm_topk_prob=rule.renormalise,
        n_group=rule.groups,
        topk_group=rule.top_groups,
        routed_scaling_factor=rule.scaling,
        topk_method="group_limited_greedy",
        router_jitter_noise=rule.jitter,
        input_jitter_noise=0.0,
    )
    theirs = kind(config).eval()
    # With the identity as its weight, a router's input is its logits.
    theirs.weight.data = torch.eye(EXPERTS)
    bias = None
    if family == "DeepSeek-V3":
        bias = theirs.e_score_correction_bias.copy_(_random(1, EXPERTS) / 4)
    logits = _random(0, TOKENS, EXPERTS)
    with torch.no_grad():
        _, weights, experts = theirs(logits)
    ours = moe.route(logits, rule, bias)
    assert ours.weights.dtype == torch.float32
    assert ours.experts.dtype == torch.int32
    torch.testing.assert_close(_by_expert(ours.weights, ours.experts), _by_expert(weights, experts))


def _by_expert(weights: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
    return torch.zeros(weights.shape[0], EXPERTS).scatter(1, experts.long(), weights.float())


def test_the_best_comes_first_and_of_equals_the_first() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, 3.0], [0.0, -0.0, 0.0, 0.0], [torch.nan, -1.0, -torch.inf, torch.nan]])
    routing = moe.route(logits, Router(3))
    assert routing.experts.tolist() == [[1, 3, 2], [0, 1, 2], [1, 0, 2]]


def test_sorted_by_hand() -> None:
    """The example in :class:`kernels.moe.SortedTokens`."""
    experts = torch.tensor([[0, 2], [2, 0], [2, 0]], dtype=torch.int32)
    ordered = moe.sort_tokens(experts, 3, 4)
    assert ordered.order[:8].tolist() == [0, 3, 5, 6, 1, 2, 4, 6]
    assert ordered.block_experts.tolist() == [0, 2, -1]


def test_the_most_blocks_are_enough() -> None:
    """1 + 1 + 4 choices take three blocks of 4, and so many are set aside."""
    assert moe.max_blocks(6, 3, 4) == 3
    assert moe.sort_tokens(torch.tensor([[0, 1], [2, 2], [2, 2]]), 3, 4).block_experts.tolist() == [0, 1, 2]


def _experts(kind: Any) -> Any:
    config = SimpleNamespace(
        num_local_experts=EXPERTS,
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        hidden_act="silu",
        swiglu_alpha=1.702,
        swiglu_limit=7.0,
        _experts_implementation="eager",
    )
    experts = kind(config)
    for seed, parameter in enumerate(experts.parameters()):
        parameter.data = 2 * _random(seed, *parameter.shape)
    return experts


def _routing() -> Routing:
    return moe.route(_random(9, TOKENS, EXPERTS), Router(3, renormalise=True))


@torch.no_grad()
def test_swiglu_experts_as_in_mixtral() -> None:
    theirs, routing, x = _experts(MixtralExperts), _routing(), _random(10, TOKENS, HIDDEN)
    expected = theirs(x, routing.experts.long(), routing.weights)
    ours = moe.experts_forward(x, theirs.gate_up_proj.data, theirs.down_proj.data, routing)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_clamped_experts_with_biases_as_in_gpt_oss() -> None:
    theirs, routing, x = _experts(GptOssExperts), _routing(), _random(10, TOKENS, HIDDEN)
    expected = theirs(x, routing.experts.long(), routing.weights)
    # There gate and up alternate, and a weight is [experts, in, out].
    halves = torch.cat([torch.arange(first, 2 * INTERMEDIATE, 2) for first in (0, 1)])
    ours = moe.experts_forward(
        x,
        theirs.gate_up_proj.data[..., halves].transpose(1, 2).contiguous(),
        theirs.down_proj.data.transpose(1, 2).contiguous(),
        routing,
        GPT_OSS,
        gate_up_bias=theirs.gate_up_proj_bias.data[:, halves].contiguous(),
        down_bias=theirs.down_proj_bias.data,
        residual=x,
    )
    torch.testing.assert_close(ours, expected + x, rtol=1e-5, atol=1e-4)


def test_activations_by_hand() -> None:
    x, one = torch.tensor([[2.0]]), torch.ones(1, 1)
    routing = Routing(one, torch.zeros(1, 1, dtype=torch.int32))
    gate_up = torch.tensor([[[1.0], [5.0]]])
    for activation, expected in (
        (SWIGLU, 2 * 10 * torch.sigmoid(torch.tensor(2.0))),
        (GPT_OSS, 2 * (7 + 1) * torch.sigmoid(torch.tensor(1.702 * 2))),
        (GEGLU_TANH, 10 * functional.gelu(torch.tensor(2.0), approximate="tanh")),
        (GatedActivation(limit=1.0), torch.sigmoid(torch.tensor(1.0))),
    ):
        out = moe.experts_forward(x, gate_up, torch.ones(1, 1, 1), routing, activation)
        torch.testing.assert_close(out, expected.view(1, 1))


def test_no_tokens() -> None:
    routing = moe.route(torch.zeros(0, 8), Router(2, groups=4, top_groups=2))
    assert routing.experts.shape == routing.weights.shape == (0, 2)
    assert moe.sort_tokens(routing.experts, 8, 16).block_experts.numel() == 0
    assert moe.experts_forward(torch.zeros(0, 4), torch.zeros(8, 6, 4), torch.zeros(8, 4, 3), routing).shape == (0, 4)


@pytest.mark.parametrize(
    "rule",
    [
        Router(0),
        Router(9),
        Router(1, groups=3),
        Router(5, groups=2),
        Router(1, groups=2, top_groups=3),
        Router(1, groups=2, group_best=5),
        Router(2, "sparsemixer", groups=2),
    ],
)
def test_a_router_that_cannot_choose_from_eight_experts_is_refused(rule: Router) -> None:
    with pytest.raises(ValueError, match=r"groups|top_k"):
        moe.route(torch.zeros(1, 8), rule)


def test_sparsemixer_with_a_selection_bias_is_refused() -> None:
    with pytest.raises(ValueError, match="bias"):
        moe.route(torch.zeros(1, 8), Router(2, "sparsemixer"), torch.zeros(8))


def test_products_that_do_not_fit_are_refused() -> None:
    x, gate_up, down = torch.zeros(4, 8), torch.zeros(2, 6, 8), torch.zeros(2, 8, 3)
    routing = moe.route(torch.zeros(4, 2), Router(1))
    moe.experts_forward(x, gate_up, down, routing)
    wrong: list[tuple[Any, ...]] = [
        (x[:, :7], gate_up, down, routing),
        (x, gate_up[:, :4], down, routing),
        (x.half(), gate_up, down, routing),
        (x[:3], gate_up, down, routing),
        (torch.zeros(8, 4).t(), gate_up, down, routing),
    ]
    for arguments in wrong:
        with pytest.raises(ValueError, match=r"fit|dtype|contiguous"):
            moe.experts_forward(*arguments)
