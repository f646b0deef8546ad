"""Facts × hardware → what needs how much memory, and what fits. Pure arithmetic, before anything is spent.

The figures follow the engine's own plan, so that "it fits" on the launch page is what the engine finds at boot::

    memory of the offer
    ├─ overhead       two Python processes with torch, the device's context
    ├─ weights        the safetensors files, in the dtype the engine computes in
    └─ the rest ── × share (0.3 on a CPU, which others use too; 0.9 on a GPU) ──┐
       ├─ activations    the widest layer for one step's tokens, and logits; on │ at most
       │                 a GPU also what it keeps of each request               │
       └─ key/value cache  blocks of 32 tokens                                  ┘ this
"""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.hub.config import DTYPE_BYTES
from control_plane.hub.facts import ModelFacts
from control_plane.providers.base import HardwareOffer

#: A step of the engine at its default settings: tokens, and sequences that are sampled from.
STEP_TOKENS = 2048
STEP_SEQUENCES = 64
#: Tokens in a block of the key/value cache.
BLOCK_SIZE = 32
#: How many parts attention divides a context into at most, on a GPU.
MAX_SPLITS = 128
#: The shortest context that is worth launching with, where the whole one does not fit.
USEFUL_CONTEXT = 512

_MIB = 1 << 20


@dataclass(frozen=True)
class _Device:
    """What differs between kinds of hardware. ``overhead`` in bytes, of what an empty engine takes.

    On a CPU its two processes were measured at 293 MB resident; a large tokenizer adds some. On a GPU it is an estimate
    of the driver's context and the libraries' workspaces.
    """

    share: float
    overhead: int


_CPU = _Device(share=0.3, overhead=400 * _MIB)
_GPU = _Device(share=0.9, overhead=700 * _MIB)


@dataclass(frozen=True)
class Memory:
    """Bytes by part. ``kv_cache`` is for the asked number of sequences at the planned context."""

    weights: int
    kv_cache: int
    activations: int
    overhead: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv_cache + self.activations + self.overhead


@dataclass(frozen=True)
class Fit:
    """Whether a model fits on an offer.

    ``max_model_len`` is the planned context in tokens, perhaps less than the model's; ``max_sequences`` how many
    requests of that length run at once, at most what the engine schedules.
    """

    offer: HardwareOffer
    fits: bool
    memory: Memory | None
    max_model_len: int | None
    max_sequences: int
    why_not: str | None


def compute_width(facts: ModelFacts, offer: HardwareOffer) -> int:
    """Bytes per number in the dtype that the engine computes in on ``offer``.

    That is the stored dtype where the device computes it well. A CPU gains nothing from float16, and without bfloat16
    instructions nothing from bfloat16: there both become float32, and so the weights grow when they are loaded.
    """
    if offer.accelerator == "cpu" and not (facts.dtype == "bfloat16" and offer.native_bfloat16):
        return 4
    return 4 if facts.dtype == "float32" else 2


def kv_bytes_per_token(facts: ModelFacts, width: int) -> int | None:
    """Keys and values of one token over all layers; None where the config does not say how many there are."""
    if not (facts.layers and facts.kv_heads and facts.head_dim):
        return None
    return 2 * facts.layers * facts.kv_heads * facts.head_dim * width


def fit(facts: ModelFacts, offer: HardwareOffer, *, max_model_len: int | None = None, concurrency: int = 1) -> Fit:
    """Plan ``facts`` onto ``offer``.

    :param max_model_len: context in tokens; by default the model's own, cut to what fits.
    :param concurrency: requests of that length that must fit at once.
    """
    if not facts.has_safetensors:
        return _refused(offer, "There are no safetensors weights, so their size is unknown.")
    width = compute_width(facts, offer)
    per_token, activations = kv_bytes_per_token(facts, width), _activations(facts, width)
    wanted = max_model_len or facts.context or USEFUL_CONTEXT
    if per_token is None or activations is None:
        return _refused(offer, "config.json does not say enough to estimate memory (layers, heads, sizes).")
    if max_model_len and facts.context and max_model_len > facts.context:
        return _refused(offer, f"The model's context is {facts.context:,} tokens, less than {max_model_len:,}.")

    device = _CPU if offer.accelerator == "cpu" else _GPU
    if device is _GPU:
        activations += _device_state(facts, width, wanted)
    weights = facts.weight_bytes * max(1, width // DTYPE_BYTES.get(facts.dtype or "", width))
    usable = offer.memory_bytes // max(1, offer.accelerator_count)  # one engine computes on one device
    rest = usable - device.overhead - weights
    blocks = max(0, int(rest * device.share) - activations) // (BLOCK_SIZE * per_token)
    capacity = blocks // concurrency * BLOCK_SIZE

    planned = wanted if max_model_len else min(wanted, max(capacity, min(wanted, USEFUL_CONTEXT)))
    blocks_each = -(-planned // BLOCK_SIZE)
    memory = Memory(
        weights=weights,
        kv_cache=concurrency * blocks_each * BLOCK_SIZE * per_token,
        activations=activations,
        overhead=device.overhead,
    )
    sequences = min(STEP_SEQUENCES, blocks // blocks_each)
    fits = sequences >= concurrency
    return Fit(offer, fits, memory, planned, sequences, None if fits else _why_not(memory, usable, device, rest))


def _activations(facts: ModelFacts, width: int) -> int | None:
    """Bytes of one step: the widest layer for its tokens, and six copies of float32 logits for sampling."""
    if not (facts.hidden_size and facts.intermediate_size and facts.vocabulary and facts.heads):
        return None
    if not (facts.kv_heads and facts.head_dim):
        return None
    return STEP_TOKENS * _elements_per_token(facts) * width + STEP_SEQUENCES * facts.vocabulary * 4 * 6


def _elements_per_token(facts: ModelFacts) -> int:
    hidden, intermediate, head_dim = facts.hidden_size or 0, facts.intermediate_size or 0, facts.head_dim or 0
    qkv = ((facts.heads or 0) + 2 * (facts.kv_heads or 0)) * head_dim
    return 4 * hidden + 2 * qkv + 4 * intermediate


def _device_state(facts: ModelFacts, width: int, context: int) -> int:
    """Bytes that a GPU holds for all sequences besides: the graphs' own activations, scratch of attention over split
    contexts, tokens and two copies of the block table."""
    partial = (facts.heads or 0) * MAX_SPLITS * ((facts.head_dim or 0) + 2) * 4
    row = 4 * (context + 2 * -(-context // BLOCK_SIZE))
    return STEP_SEQUENCES * (_elements_per_token(facts) * width + partial + row)


def _why_not(memory: Memory, usable: int, device: _Device, rest: int) -> str:
    if rest <= 0:
        return (
            f"The weights need {_gib(memory.weights)} and the engine itself {_gib(memory.overhead)}; "
            f"{_gib(usable)} are there."
        )
    needed = memory.weights + memory.overhead + int((memory.kv_cache + memory.activations) / device.share)
    return (
        f"Weights, key/value cache and activations need {_gib(needed)} with the margin that is left to others; "
        f"{_gib(usable)} are there. A shorter context or fewer requests at once need less."
    )


def _refused(offer: HardwareOffer, why: str) -> Fit:
    return Fit(offer, False, None, None, 0, why)


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
