"""What the decoder needs to know about a model, under one set of names, whatever its family calls them.

::

    DecoderConfig ─► layers, each a tuple of BlockConfig ─► operation: AttentionConfig, LatentAttentionConfig,
                                                             FeedForwardConfig or MixtureConfig

A layer is a tuple of blocks along one residual stream, so its topology is data::

    pre-norm       x ─┬─ norm ─ f ─ + ─►          post-norm      x ─┬─ f ─ output_norm ─ + ─►
                      └─────────────┘                               └─────────────────────┘
    sandwich       x ─┬─ norm ─ f ─ output_norm ─ + ─►    post-LN   x ─┬─ f ─ + ─ stream_norm ─►
                      └───────────────────────────┘                    └──────┘
    parallel       the second block reads the "layer_input" instead of the "stream", by a norm of its own or "shared"
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from kernels.activation import GatedKind, Kind
from kernels.moe import SWIGLU, GatedActivation, Router
from serving_image.models.cache_layout import CacheLayout, CacheShape, LatentShape
from serving_image.models.rotary import RotaryConfig


@dataclass(frozen=True, kw_only=True)
class NormConfig:
    """Normalisation of a vector by its root mean square, or by its mean and variance.

    :ivar has_weight: False: the norm has no parameters at all (OLMo).
    :ivar wide: the parameters stay in float32, because a sum such as Gemma's ``1 + weight`` would lose bits.
    """

    kind: Literal["rms", "layer"]
    epsilon: float
    has_weight: bool = True
    has_bias: bool = False
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class QKNormConfig:
    """Normalisation of queries and keys.

    :ivar extent: each ``head`` by itself, or all heads of a token as one vector: the ``projection``.
    :ivar per_head: every head has weights of its own; else all share ``head_dim`` of them.
    :ivar after_rotation: it comes after the rotary embedding (Hunyuan).
    :ivar before_clip: it comes before the clip, over the whole projection (OLMoE).
    """

    kind: Literal["rms", "layer"]
    epsilon: float
    extent: Literal["head", "projection"] = "head"
    per_head: bool = False
    has_bias: bool = False
    wide: bool = False
    after_rotation: bool = False
    before_clip: bool = False


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Attention over keys and values.

    :ivar scale: factor on the scores; None: ``head_dim ** -0.5``.
    :ivar rotary: None: positions are not rotated into queries and keys.
    :ivar clip: queries, keys and values are cut to ``±clip``.
    :ivar window: a query sees this many tokens, itself included; None: all.
    :ivar softcap: scores become ``softcap * tanh(score / softcap)``.
    :ivar alibi_slopes: one per head: Press et al. 2021, arXiv 2108.12409.
    :ivar has_sinks: each head has a learned score for attending to nothing (gpt-oss).
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float | None = None
    rotary: RotaryConfig | None = None
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: QKNormConfig | None = None
    clip: float | None = None
    window: int | None = None
    softcap: float | None = None
    alibi_slopes: tuple[float, ...] | None = None
    has_sinks: bool = False

    @property
    def query_size(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.num_kv_heads * self.head_dim

    @property
    def cache_shape(self) -> CacheShape:
        return CacheShape(self.num_kv_heads, self.head_dim, self.window)

    @property
    def query_elements(self) -> int:
        return self.query_size

    @property
    def activation_elements(self) -> int:
        return 2 * (self.query_size + 2 * self.kv_size)


@dataclass(frozen=True, kw_only=True)
class LatentAttentionConfig:
    """Multi-head latent attention: DeepSeek-AI 2024, arXiv 2405.04434.

    :ivar query_rank: width of the queries' own compression; None: they come straight from the hidden state.
    :ivar latent_dim: width of the joint compression of keys and values.
    :ivar nope_dim: part of a head's query and key that is not rotated; ``rope_dim``: the part that is.
    :ivar value_dim: width of a head's value.
    :ivar has_bias: of the down-projections and the output.
    """

    num_heads: int
    query_rank: int | None
    latent_dim: int
    nope_dim: int
    rope_dim: int
    value_dim: int
    scale: float
    epsilon: float
    rotary: RotaryConfig
    has_bias: bool = False

    @property
    def cache_shape(self) -> LatentShape:
        return LatentShape(self.latent_dim, self.rope_dim)

    @property
    def query_elements(self) -> int:
        return self.num_heads * (self.latent_dim + self.rope_dim)

    @property
    def activation_elements(self) -> int:
        return 2 * self.query_elements + self.num_heads * (self.nope_dim + self.rope_dim + self.value_dim)


@dataclass(frozen=True, kw_only=True)
class FeedForwardConfig:
    """A dense feed-forward block: ``down(gate(x) * up(x))`` or, without a gate, ``down(activation(up(x)))``.

    :ivar gate: the gate's activation; None: there is no gate, but an ``activation``.
    :ivar activation: one of :mod:`kernels.activation`; ``xielu`` has two learned numbers (Apertus).
    """

    intermediate_size: int
    gate: GatedKind | None = None
    activation: Kind | Literal["xielu"] | None = None
    up_bias: bool = False
    down_bias: bool = False

    @property
    def activation_elements(self) -> int:
        return (4 if self.gate else 2) * self.intermediate_size


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """A mixture of experts.

    :ivar router_bias: the router's product has a bias; ``selection_bias``: one that counts for the choice only
        (DeepSeek-V3).
    :ivar shared: experts that every token goes to, as one feed-forward block; ``shared_gate``: its result is weighted
        by the sigmoid of a product of its own (Qwen2-MoE).
    """

    num_experts: int
    intermediate_size: int
    router: Router
    activation: GatedActivation = SWIGLU
    expert_bias: bool = False
    router_bias: bool = False
    selection_bias: bool = False
    shared: FeedForwardConfig | None = None
    shared_gate: bool = False

    @property
    def activation_elements(self) -> int:
        shared = self.shared.activation_elements if self.shared else 0
        return shared + 4 * self.router.top_k * self.intermediate_size + 2 * self.num_experts


Operation = AttentionConfig | LatentAttentionConfig | FeedForwardConfig | MixtureConfig


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """One operation and its way from and to the residual stream; see the drawing above.

    :ivar norm: of the input; ``shared``: the block before has computed it.
    :ivar reads: the ``stream`` as the block before has left it, or the ``layer_input``, so that both run in parallel.
    :ivar residual: what the result is added to; ``normalised``: the block's normalised input (a flag of BLOOM).
    """

    operation: Operation
    norm: NormConfig | Literal["shared"] | None = None
    output_norm: NormConfig | None = None
    stream_norm: NormConfig | None = None
    reads: Literal["stream", "layer_input"] = "stream"
    residual: Literal["stream", "normalised"] = "stream"


LayerConfig = tuple[BlockConfig, ...]


def pre_norm_layer(attention: Operation, feed_forward: Operation, norm: NormConfig) -> LayerConfig:
    """Normalise, compute, add; twice."""
    return BlockConfig(operation=attention, norm=norm), BlockConfig(operation=feed_forward, norm=norm)


def parallel_layer(
    attention: Operation, feed_forward: Operation, norm: NormConfig, *, shared_norm: bool = True
) -> LayerConfig:
    """Both operations read the layer's input, through one norm or one each."""
    second = BlockConfig(operation=feed_forward, norm="shared" if shared_norm else norm, reads="layer_input")
    return BlockConfig(operation=attention, norm=norm, reads="layer_input"), second


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig:
    """From token ids to the first layer's input.

    :ivar scale: factor on the token's vector.
    :ivar num_positions: rows of a table of learned positions that is added; None: there is none.
    :ivar norm: of the sum (BLOOM).
    :ivar width: of the token's vector, if it is projected to the hidden size, and back before the output layer (OPT).
    """

    scale: float = 1.0
    num_positions: int | None = None
    norm: NormConfig | None = None
    width: int | None = None


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """A decoder-only transformer. Sizes count elements; ``max_position`` counts tokens the model was made for.

    Factors on logits stand in the final norm's weights.

    :ivar logit_softcap: logits become ``softcap * tanh(logits / softcap)``.
    """

    vocab_size: int
    hidden_size: int
    layers: tuple[LayerConfig, ...]
    final_norm: NormConfig | None
    max_position: int
    embedding: EmbeddingConfig = EmbeddingConfig()
    tie_word_embeddings: bool = False
    lm_head_bias: bool = False
    logit_softcap: float | None = None

    @cached_property
    def attentions(self) -> tuple[AttentionConfig | LatentAttentionConfig, ...]:
        """The layers' attention, in order; layers may have none."""
        operations = (block.operation for layer in self.layers for block in layer)
        return tuple(part for part in operations if isinstance(part, (AttentionConfig, LatentAttentionConfig)))

    @cached_property
    def cache_layout(self) -> CacheLayout:
        return CacheLayout(tuple(attention.cache_shape for attention in self.attentions))

    @cached_property
    def rotaries(self) -> tuple[RotaryConfig | None, ...]:
        """The different rotary embeddings; None among them: a layer without."""
        return tuple(dict.fromkeys(attention.rotary for attention in self.attentions))

    @property
    def depends_on_lengths(self) -> bool:
        return any(rotary is not None and rotary.depends_on_lengths for rotary in self.rotaries)

    @property
    def query_elements(self) -> int:
        return max(attention.query_elements for attention in self.attentions)

    @property
    def activation_elements(self) -> int:
        widest = max(block.operation.activation_elements for layer in self.layers for block in layer)
        return 6 * self.hidden_size + widest
