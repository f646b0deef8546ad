"""The least a case can cost on this machine: bytes that must be read and operations that must be done.

A step reads every weight but the embedding once, and the keys and values of its requests; it multiplies every token
with every weight, but ``lm_head`` only where a token is sampled. The floor of a step is the longer of bytes ÷ read
bandwidth and operations ÷ the fastest matrix product of the machine, as if each hid the other wholly. Nothing else
counts: no norms, no sampling, no Python.
"""

from __future__ import annotations

from dataclasses import dataclass

from llama_246m import CONFIG

from engine.machine import Machine
from engine.workload import Job

_NUMBERS = {name: value for name, value in CONFIG.items() if isinstance(value, int)}
HIDDEN, INNER, VOCAB = _NUMBERS["hidden_size"], _NUMBERS["intermediate_size"], _NUMBERS["vocab_size"]
LAYERS, HEADS, KV_HEADS = (_NUMBERS[f"num_{name}"] for name in ("hidden_layers", "attention_heads", "key_value_heads"))
HEAD_DIM = _NUMBERS["head_dim"]
#: Weights of all layers' matrices, and of ``lm_head``.
LAYER_WEIGHTS = LAYERS * (HIDDEN * HEAD_DIM * (2 * HEADS + 2 * KV_HEADS) + 3 * HIDDEN * INNER)
HEAD_WEIGHTS = HIDDEN * VOCAB
#: Bytes of one token's keys and values in bfloat16.
KV_BYTES = LAYERS * 2 * KV_HEADS * HEAD_DIM * 2


@dataclass(frozen=True)
class Floor:
    """Floors of one variant: ``weight_bytes`` each, and operations per second."""

    weight_bytes: int
    peak: float
    bandwidth: float

    @classmethod
    def of(cls, variant: str, machine: Machine) -> Floor:
        """``exact`` may multiply in any float type; ``int8`` in int8 as well."""
        floats = ("float32", "bfloat16", "float16")
        dtypes = (*floats, "int8") if variant == "int8" else floats
        return cls(1 if variant == "int8" else 2, machine.peak(*dtypes), machine.bandwidth)

    @property
    def weights(self) -> int:
        """Bytes of weights that a step reads."""
        return self.weight_bytes * (LAYER_WEIGHTS + HEAD_WEIGHTS)

    def one_request(self) -> float:
        """Most tokens per second: weight bytes only, which is what the target is about."""
        return self.bandwidth / self.weights

    def decode(self, requests: int, context: int) -> float:
        """Most tokens per second of ``requests`` that decode at ``context``."""
        read = (self.weights + requests * context * KV_BYTES) / self.bandwidth
        operations = requests * (2 * (LAYER_WEIGHTS + HEAD_WEIGHTS) + self._attention(1, context))
        return requests / max(read, operations / self.peak)

    def prefill(self, tokens: int, cached: int = 0) -> float:
        """Least seconds to the first token after ``tokens`` that follow ``cached`` ones."""
        attention = self._attention(tokens, cached + tokens / 2)
        operations = 2 * (tokens * LAYER_WEIGHTS + HEAD_WEIGHTS) + attention
        return max(operations / self.peak, (self.weights + cached * KV_BYTES) / self.bandwidth)

    def burst(self, jobs: list[Job]) -> float:
        """Most output tokens per second: all operations, or the weights once for each token of the longest answer."""
        outputs = sum(job.max_tokens for job in jobs)
        operations = 2 * outputs * HEAD_WEIGHTS
        for job in jobs:
            tokens = len(job.prompt) + job.max_tokens - 1
            operations += 2 * tokens * LAYER_WEIGHTS + self._attention(tokens, tokens / 2)
        read = max(job.max_tokens for job in jobs) * self.weights / self.bandwidth
        return outputs / max(operations / self.peak, read)

    @staticmethod
    def _attention(tokens: int, context: float) -> int:
        """Operations of scores and weighted values: two each per head, dimension and pair of tokens."""
        return int(4 * LAYERS * HEADS * HEAD_DIM * tokens * context)
