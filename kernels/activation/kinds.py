"""The activations by name."""

from __future__ import annotations

from typing import Literal

Kind = Literal["silu", "gelu", "gelu_tanh", "relu", "relu_squared"]
"""``silu``: ``x · sigmoid(x)`` (Elfwing et al. 2017, arXiv 1702.03118); ``gelu``: ``x · Φ(x)`` by the error function;
``gelu_tanh``: the same with Φ by a tanh (Hendrycks and Gimpel 2016, arXiv 1606.08415), which configurations also call
``gelu_new``, ``gelu_fast`` and ``gelu_pytorch_tanh``; ``relu``: ``max(x, 0)``; ``relu_squared``: its square (So et al.
2021, arXiv 2109.08668)."""

GatedKind = Literal["silu", "gelu", "gelu_tanh", "relu"]
"""Those of them that gate: SwiGLU, GeGLU with either Φ, and ReGLU (Shazeer 2020, arXiv 2002.05202)."""
