"""How a mixture of experts chooses, and what it chose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

Scoring = Literal["softmax", "sigmoid", "sparsemixer"]


class Routing(NamedTuple):
    """Which experts each token goes to.

    ``experts`` is ``[tokens, top_k]`` int32, all different in a row, the best first; ``weights`` is ``[tokens, top_k]``
    float32, what the output of each is multiplied with.
    """

    weights: Tensor
    experts: Tensor


@dataclass(frozen=True, slots=True)
class Router:
    """The rule by which the scores of all experts become a choice.

    ================== =================================================================================
    family             rule
    ================== =================================================================================
    Mixtral, Qwen3-MoE ``Router(top_k, renormalise=True)``
    DBRX, OLMoE        the same, renormalised or not as their configuration says
    Qwen2-MoE          ``Router(top_k)``
    gpt-oss, Granite   ``Router(top_k, renormalise=True)``: a softmax over the chosen is just that
    DeepSeek-V2        ``Router(top_k, groups=…, top_groups=…, scaling=…)``
    DeepSeek-V3, GLM-4 ``Router(top_k, "sigmoid", renormalise=True, groups=…, top_groups=…, group_best=2,
                       scaling=…)``, with a selection bias
    PhiMoE             ``Router(2, "sparsemixer", jitter=…)``
    ================== =================================================================================

    :ivar top_k: experts for each token.
    :ivar scoring: what a logit becomes: its share in the ``softmax`` over all experts; its ``sigmoid``; or its share
        among those that are close to the best left, one choice after another (``sparsemixer``, Liu et al. 2024, arXiv
        2409.12136, as it is at inference).
    :ivar renormalise: divide the weights of the chosen by their sum.
    :ivar groups: groups of equally many neighbouring experts; only experts of the best ``top_groups`` can be chosen. A
        group is worth the sum of its ``group_best`` best scores.
    :ivar scaling: a factor of all weights, after renormalising.
    :ivar jitter: for sparsemixer: experts whose logits lie further below the best than ``2 * jitter`` times the larger
        of their magnitudes have no share.
    """

    top_k: int
    scoring: Scoring = "softmax"
    renormalise: bool = False
    groups: int = 1
    top_groups: int = 1
    group_best: int = 1
    scaling: float = 1.0
    jitter: float = 0.0

    def check(self, num_experts: int) -> None:
        """Whether so many experts can be routed to.

        :raises ValueError: they do not divide into the groups, the groups that may be chosen hold less than ``top_k``,
            or there are groups although sparsemixer knows none.
        """
        if self.scoring == "sparsemixer" and self.groups > 1:
            raise ValueError("sparsemixer chooses among all experts, not groups of them")
        if num_experts % self.groups:
            raise ValueError(f"{num_experts} experts do not divide into {self.groups} groups")
        size = num_experts // self.groups
        if not 1 <= self.top_groups <= self.groups or not 1 <= self.group_best <= size:
            raise ValueError(f"{self} does not fit {self.groups} groups of {size}")
        if not 1 <= self.top_k <= self.top_groups * size:
            raise ValueError(f"top_k is {self.top_k}; experts to choose from: {self.top_groups * size}")
