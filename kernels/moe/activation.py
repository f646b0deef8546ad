"""The gated activation inside an expert."""

from __future__ import annotations

import math
from typing import NamedTuple

from kernels.activation import GatedKind


class GatedActivation(NamedTuple):
    """``gate * share(alpha * gate) * (up + offset)``, where ``kind(x) = x * share(x)``: the sigmoid for ``silu``. First
    the gate is clamped from above to ``limit`` and the other half to ``±limit``."""

    kind: GatedKind = "silu"
    alpha: float = 1.0
    limit: float = math.inf
    offset: float = 0.0


SWIGLU = GatedActivation()
"""``silu(gate) * up``: Shazeer 2020, arXiv 2002.05202."""

GEGLU_TANH = GatedActivation("gelu_tanh")
"""``gelu_tanh(gate) * up``: the same."""

GPT_OSS = GatedActivation(alpha=1.702, limit=7.0, offset=1.0)
"""The variant of OpenAI's gpt-oss (2025)."""
