"""Facts × hardware → what needs how much memory, and what fits. Pure arithmetic, before anything is spent.

The figures follow the engine's own plan, so that "it fits" on the launch page is what the engine finds at boot::

    memory of the offer
    ├─ overhead       two Python processes with torch, the device's context
    ├─ weights        as stored, or grown to the dtype that the engine computes in
    └─ the rest ── × share (0.3 on a CPU, which others use too; 0.9 on a GPU) ──┐
       ├─ activations    the widest layer for one step's tokens, and logits; on │ at most
       │                 a GPU also what it keeps of each request               │
       └─ key/value cache  blocks of 32 tokens; see cache.py                    ┘ this
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from control_plane.hub.architectures import get_architectures
from control_plane.hub.attention import AttentionLayer
from control_plane.hub.config import DTYPE_BYTES, ModelConfig
from control_plane.hub.feed_forward import FeedForward
from control_plane.providers.base import HardwareOffer
from control_plane.sizing.cache import BLOCK_SIZE, STEP_TOKENS, CacheLayout

#: Sequences that a step of the engine samples from, at its default settings.
STEP_SEQUENCES = 64
#: How many parts attention divides a context into at most, on a GPU.
MAX_SPLITS = 128
#: Over how many devices the engine can spread one model.
ENGINE_DEVICE_COUNTS = (1,)
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

    ``memory`` is of one device, of which ``accelerator_count`` are needed (0 on processors). ``max_model_len`` is the
    planned context in tokens, perhaps less than the model's; ``max_sequences`` how many requests of that length run at
    once, at most what the engine schedules.
    """

    offer: HardwareOffer
    fits: bool
    memory: Memory | None
    max_model_len: int | None
    max_sequences: int
    why_not: str | None
    accelerator_count: int = 0

    @property
    def price_per_hour(self) -> float:
        """US dollars, of one replica."""
        return self.offer.price_per_hour * max(1, self.accelerator_count)


class Model(Protocol):
    """What is planned with: facts of a checkpoint, or an entry of the catalog.

    ``weight_bytes`` is the size of the stored weights, 0 if there are none; ``dtype`` that of most of their numbers.
    """

    @property
    def config(self) -> ModelConfig: ...

    @property
    def weight_bytes(self) -> int: ...

    @property
    def dtype(self) -> str | None: ...


def compute_width(dtype: str | None, offer: HardwareOffer) -> int:
    """Bytes per number in the dtype that the engine computes in on ``offer``, for weights stored in ``dtype``.

    That is the stored dtype where the device computes it well. A CPU gains nothing from float16, and without bfloat16
    instructions nothing from bfloat16: there both become float32, and so the weights grow when they are loaded.
    """
    if offer.accelerator == "cpu" and not (dtype == "bfloat16" and offer.native_bfloat16):
        return 4
    return 4 if dtype == "float32" else 2


def fit(
    model: Model,
    offer: HardwareOffer,
    *,
    max_model_len: int | None = None,
    concurrency: int = 1,
    kv_cache_memory: int | None = None,
    device_counts: Sequence[int] = ENGINE_DEVICE_COUNTS,
) -> Fit:
    """Plan ``model`` onto as few devices of ``offer`` as are enough.

    :param max_model_len: context in tokens; by default the model's own, cut to what fits.
    :param concurrency: requests of that length that must fit at once.
    :param kv_cache_memory: bytes of the whole key/value cache; by default what is left of the devices.
    :param device_counts: numbers of devices to try, in rising order.
    """
    if not model.weight_bytes:
        return _refused(offer, "There are no weights that could be loaded, so their size is unknown.")
    config, step = model.config, _Step.of(model.config)
    if step is None:
        return _refused(offer, "config.json does not say enough to estimate memory (layers, heads, sizes).")
    if max_model_len and config.context and max_model_len > config.context:
        return _refused(offer, f"The model's context is {config.context:,} tokens, less than {max_model_len:,}.")
    request = _Request(max_model_len, concurrency, kv_cache_memory)
    counts = [count for count in device_counts if _can_spread(config, offer, count)] or [1]
    plans = [_plan(model, offer, step, request, count) for count in counts]
    return next((plan for plan in plans if plan.fits), plans[-1])


class _Request(NamedTuple):
    max_model_len: int | None
    concurrency: int
    kv_cache_memory: int | None


def _can_spread(config: ModelConfig, offer: HardwareOffer, count: int) -> bool:
    """Whether ``count`` devices can share the heads of every layer evenly, and one replica can have so many here."""
    even = all(layer.heads % count == 0 and layer.kv_heads % count == 0 for layer in config.attention)
    return count == 1 or (count <= offer.accelerator_count and even)


def _plan(model: Model, offer: HardwareOffer, step: _Step, request: _Request, count: int) -> Fit:
    width, config = compute_width(model.dtype, offer), model.config
    device = _CPU if offer.accelerator == "cpu" else _GPU
    wanted = request.max_model_len or config.context or USEFUL_CONTEXT
    cache = CacheLayout.of(_kept_layers(config))
    activations = step.bytes(width)
    if device is _GPU:
        activations += step.device_state(width, wanted, len(cache.windows))
    weights = -(-model.weight_bytes * width // DTYPE_BYTES.get(model.dtype or "", width) // count)
    rest = offer.memory_bytes - device.overhead - weights
    block = -(-BLOCK_SIZE * cache.elements_per_token * width // count)
    room = max(0, int(rest * device.share) - activations)
    blocks = min(room, (request.kv_cache_memory or room * count) // count) // block
    capacity = cache.longest(blocks // request.concurrency, wanted)

    planned = wanted if request.max_model_len else max(capacity, min(wanted, USEFUL_CONTEXT))
    blocks_each = cache.blocks(planned)
    needed = request.concurrency * blocks_each * block
    memory = Memory(
        weights=weights,
        kv_cache=max(needed, (request.kv_cache_memory or 0) // count),
        activations=activations,
        overhead=device.overhead,
    )
    sequences = min(STEP_SEQUENCES, blocks // blocks_each)
    why_not = None
    if sequences < request.concurrency:
        why_not = _why_not(memory, offer.memory_bytes, device, rest)
    elif request.kv_cache_memory and request.kv_cache_memory // count > room:
        why_not = f"A key/value cache of {_gib(request.kv_cache_memory)} is more than the {_gib(room)} that are left."
    devices = 0 if device is _CPU else count
    return Fit(offer, why_not is None, memory, planned, sequences, why_not, devices)


def _runs_through_transformers(config: ModelConfig) -> bool:
    return config.architecture in get_architectures().fallback


def _kept_layers(config: ModelConfig) -> tuple[AttentionLayer, ...]:
    """The layers as the cache keeps them: what is served through Transformers keeps all tokens, windows or not."""
    if _runs_through_transformers(config):
        return tuple(layer._replace(window=None) for layer in config.attention)
    return config.attention


@dataclass(frozen=True)
class _Step:
    """What a step holds besides weights and cache; ``elements``: of one token in the widest layer, at once."""

    vocabulary: int
    elements: int
    queries: int

    @classmethod
    def of(cls, config: ModelConfig) -> _Step | None:
        """None where the config does not say enough."""
        if not (config.hidden_size and config.feed_forward and config.vocabulary and config.attention):
            return None
        queries = max(map(_query_elements, config.attention))
        if _runs_through_transformers(config):
            widest = 4 * queries + _feed_forward_elements(config.feed_forward)
        else:
            widest = max(*map(_attention_elements, config.attention), _feed_forward_elements(config.feed_forward))
        return cls(config.vocabulary, 6 * config.hidden_size + widest, queries)

    def bytes(self, width: int) -> int:
        """The widest layer for a step's tokens, and six copies of float32 logits for sampling."""
        return STEP_TOKENS * self.elements * width + STEP_SEQUENCES * self.vocabulary * 4 * 6

    def device_state(self, width: int, context: int, tables: int) -> int:
        """What a GPU holds for all sequences besides: the graphs' own activations, scratch of attention over split
        contexts (an eighth more, for two numbers per head), tokens and two copies of each of the block tables."""
        partial = self.queries * 9 // 8 * MAX_SPLITS * 4
        row = 4 * (context + 2 * tables * -(-context // BLOCK_SIZE))
        return STEP_SEQUENCES * (self.elements * width + partial + row)


def _query_elements(layer: AttentionLayer) -> int:
    width = layer.latent.rank + layer.latent.rope_dim if layer.latent else layer.head_dim
    return layer.heads * width


def _attention_elements(layer: AttentionLayer) -> int:
    if layer.latent:
        expanded = layer.latent.nope_dim + layer.latent.rope_dim + layer.latent.value_dim
        return 2 * _query_elements(layer) + layer.heads * expanded
    return 2 * (layer.heads + 2 * layer.kv_heads) * layer.head_dim


def _feed_forward_elements(part: FeedForward) -> int:
    """Of the dense layers or the mixture, whichever is wider: input and result of both halves of a gated projection."""
    mixture = 4 * (part.shared + part.top_k * part.expert_inner) + 2 * part.experts
    return max((4 if part.gated else 2) * part.dense, mixture)


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
