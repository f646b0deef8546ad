"""The model that is measured, and the least that its steps can cost.

A step's kernels are bound one by one: a matrix product by the longer of its bytes and its operations, all else by its
bytes. The sum of these floors is the step's, as if nothing lay between two kernels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.results import Ceilings

_VALUE = 2
"""Bytes of a value in bfloat16."""


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """A decoder of the Llama family; by default Llama 3 8B."""

    vocab: int = 128_256
    hidden: int = 4096
    intermediate: int = 14_336
    layers: int = 32
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128

    @property
    def products(self) -> list[tuple[int, int, int]]:
        """How often a step multiplies with a weight of ``[columns, depth]``: (times, columns, depth)."""
        qkv = (self.heads + 2 * self.kv_heads) * self.head_dim
        return [
            (self.layers, qkv, self.hidden),
            (self.layers, self.hidden, self.heads * self.head_dim),
            (self.layers, 2 * self.intermediate, self.hidden),
            (self.layers, self.hidden, self.intermediate),
            (1, self.vocab, self.hidden),
        ]

    @property
    def weight_bytes(self) -> int:
        """What a step reads of the weights: all but the embedding."""
        return _VALUE * sum(times * columns * depth for times, columns, depth in self.products)

    @property
    def token_bytes(self) -> int:
        """Keys and values of one token in all layers."""
        return _VALUE * 2 * self.layers * self.kv_heads * self.head_dim

    def decode_bytes(self, requests: int, context: float) -> int:
        """Weights once, and every request's keys and values."""
        return int(self.weight_bytes + requests * context * self.token_bytes)

    def decode_operations(self, requests: int, context: float) -> int:
        """Two for each weight and token, and four for each element of a query head and key."""
        attention = 4 * self.layers * self.heads * self.head_dim * context
        return int(requests * (self.weight_bytes / _VALUE * 2 + attention))

    def prompt_operations(self, tokens: int) -> int:
        """Every token with every weight, but the last one alone with the vocabulary's; each sees those before it."""
        vocabulary = self.vocab * self.hidden
        weights = self.weight_bytes // _VALUE - vocabulary
        attention = 4 * self.layers * self.heads * self.head_dim * tokens * (tokens + 1) // 2
        return 2 * (tokens * weights + vocabulary) + attention

    def step_floor(self, requests: int, context: float, ceilings: Ceilings) -> float:
        """The sum of the floors of a decode step's kernels, in seconds."""
        products = sum(
            times
            * max(
                _VALUE * (columns * depth + requests * (columns + depth)) / ceilings.copy,
                2 * requests * columns * depth / ceilings.matmul,
            )
            for times, columns, depth in self.products
        )
        return products + self._streamed(requests, context) / ceilings.copy

    def _streamed(self, requests: int, context: float) -> float:
        """Bytes that a step's other kernels move: attention, norms, rotation, activation, embedding, sampler."""
        qkv = (self.heads + 2 * self.kv_heads) * self.head_dim
        query = self.heads * self.head_dim
        values_per_layer = 2 * 4 * self.hidden + 2 * qkv + 2 * query + 3 * self.intermediate
        scores = 4 * self.vocab
        per_request = _VALUE * (self.layers * values_per_layer + 2 * self.hidden) + scores
        return requests * (context * self.token_bytes + per_request)

    def config(self) -> dict[str, Any]:
        """As in a checkpoint's ``config.json``."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "rope_theta": 500_000.0,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": False,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "dtype": "bfloat16",
        }

    def write_config(self, folder: Path) -> Path:
        """A folder that ``--load-format dummy`` serves."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config(), indent=1))
        return folder
