"""The gated activation inside an expert."""

from __future__ import annotations

import math
from typing import NamedTuple


class GatedActivation(NamedTuple):
    """``gate * sigmoid(alpha * gate) * (up + offset)``, the gate clamped from above to ``limit`` and the other half to
    ``±limit``."""

    alpha: float = 1.0
    limit: float = math.inf
    offset: float = 0.0


SWIGLU = GatedActivation()
"""``silu(gate) * up``: Shazeer 2020, arXiv 2002.05202."""

GPT_OSS = GatedActivation(alpha=1.702, limit=7.0, offset=1.0)
"""The variant of OpenAI's gpt-oss (2025)."""
