"""Fused passes over 8,192 tokens of Llama 3 8B: bound by what they read and write."""

from __future__ import annotations

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.workloads.attention import Heads
from benchmarks.gpu.workloads.streams import activation, embedding, layer, rms, rotation

TOKENS = 8192
_VALUE = 2


def measure(bench: Bench, tokens: int = TOKENS, hidden: int = 4096, intermediate: int = 14_336) -> None:
    """Residual and norm, rotation and storage, activation, embedding. Weights, angles and slots are counted too."""
    row, device, heads = "fused", bench.device, Heads()
    streamed = tokens * hidden * _VALUE
    bench.figure(row, "residual + RMSNorm", rms(tokens, hidden, device), moved=4 * streamed + hidden * _VALUE)
    bench.figure(row, "residual + LayerNorm", layer(tokens, hidden, device), moved=4 * streamed + 2 * hidden * _VALUE)
    qkv = tokens * (heads.heads + 2 * heads.kv_heads) * heads.head_dim * _VALUE
    angles = tokens * (heads.head_dim * 4 + 8)
    bench.figure(row, "rotary + KV write", rotation(tokens, heads, device), moved=2 * qkv + angles)
    bench.figure(row, "SwiGLU", activation(tokens, intermediate, device), moved=3 * tokens * intermediate * _VALUE)
    bench.figure(row, "embedding", embedding(tokens, hidden, device), moved=2 * streamed + 8 * tokens)
