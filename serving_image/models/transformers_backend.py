"""Architectures that the decoder does not have: Transformers runs them, on the engine's own scheduler and paged cache.

Transformers calls attention through a table of functions. Ours stores keys and values in the cache and attends over its
pages, so all the rest of a model sees is one long sequence of tokens, whatever sequences they belong to. That is right
only if nothing but attention looks at other tokens, which is checked: before the weights are read, by one pass over
tensors without data; and after, by comparing two sequences side by side with each by itself.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.modeling_outputs import MoeModelOutputWithPast
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from kernels.attention import AttentionVariant, LayerCache, PagedBatch, paged_attention
from kernels.rotate_and_store import rotate_and_store
from serving_image.errors import StartupError
from serving_image.models.cache_layout import CacheLayout, CacheShape
from serving_image.models.checkpoint import some
from serving_image.models.interface import AttentionCache, ModelInput

_NAME = "slipway_paged"
_LAYER_TYPES = frozenset({"full_attention", "sliding_attention", "attention"})
_CHECKED_TOKENS = (3, 5, 7), (11, 13)


class _Attended(NamedTuple):
    """What a layer asks of attention."""

    shape: CacheShape
    num_heads: int


@dataclass
class _Pass:
    """One forward pass: its batch and caches, or none where it only finds out what the layers ask for."""

    paging: PagedBatch | None = None
    caches: Sequence[AttentionCache] = ()
    attended: list[_Attended] = field(default_factory=list)


_running: ContextVar[_Pass] = ContextVar("running")


@dataclass(frozen=True)
class TransformersConfig:
    """Sizes of a model that Transformers runs; see :class:`serving_image.models.interface.ModelConfig`."""

    vocab_size: int
    hidden_size: int
    max_position: int
    cache_layout: CacheLayout
    query_elements: int
    activation_elements: int
    depends_on_lengths: bool = False


class TransformersModel:
    """A model of Transformers; see :class:`serving_image.models.interface.Model`."""

    def __init__(self, model: PreTrainedModel, config: TransformersConfig) -> None:
        self._model = model
        self._head = _without_base(self._model)
        self.config = config
        self.dtype: torch.dtype = model.dtype
        self.device: torch.device = model.device
        parameters = {id(parameter): parameter for parameter in model.parameters()}.values()
        self.num_parameters = sum(parameter.numel() for parameter in parameters)
        self.weight_bytes = sum(parameter.nbytes for parameter in parameters)

    def forward(self, inputs: ModelInput, caches: Sequence[AttentionCache]) -> Tensor:
        """See :class:`serving_image.models.interface.Model`."""
        with _running_pass(_Pass(inputs.pagings[0], caches)):
            return _hidden_states(self._model, inputs.token_ids, inputs.positions)

    def logits(self, hidden: Tensor) -> Tensor:
        """See :class:`serving_image.models.interface.Model`."""
        logits: Tensor = self._head(inputs_embeds=hidden[None], use_cache=False).logits[0]
        return logits.float().contiguous()


def why_not(architecture: str) -> str | None:
    """Why Transformers cannot run an architecture for us, as the end of "it …"; None if nothing but the model itself
    can tell (:func:`describe`)."""
    kinds = (
        ("is an encoder-decoder, and only decoders are served", MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
        ("is an encoder, which generates no text", MODEL_FOR_MASKED_LM_MAPPING_NAMES),
        ("takes images, and only text is served", MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES),
    )
    if architecture not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        found = (reason for reason, names in kinds if architecture in names.values())
        return next(found, "is not a causal language model that Transformers knows")
    model_class: type[PreTrainedModel] = getattr(transformers, architecture)
    if model_class._is_stateful:
        return "is a state-space or recurrent model, which has no keys and values to keep in pages"
    if not model_class._supports_attention_backend:
        return "has attention of its own, which cannot be replaced by paged attention"
    return None


def load_transformers_model(
    folder: Path, config: TransformersConfig, dtype: torch.dtype, device: torch.device
) -> TransformersModel:
    """Read the weights of a model that :func:`describe` has looked at.

    :raises StartupError: weights are missing or of another shape, or the model mixes tokens of different sequences.
    """
    load: Any = AutoModelForCausalLM.from_pretrained
    try:
        model, report = load(
            folder,
            dtype=dtype,
            attn_implementation=_NAME,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise StartupError(
            f"Transformers cannot load {folder}: {str(error).splitlines()[0]}", "Download the model again."
        ) from error
    for verb, key in (("lacks", "missing_keys"), ("has the wrong shape for", "mismatched_keys")):
        if report[key]:
            raise StartupError(
                f"The checkpoint in {folder} {verb} {some(sorted(map(str, report[key])))}.",
                "Its files do not belong to its config.json; download the model again.",
            )
    loaded = TransformersModel(model.to(device).eval(), config)
    _check_tokens_stay_apart(loaded)
    return loaded


def random_transformers_model(
    folder: Path, config: TransformersConfig, dtype: torch.dtype, device: torch.device, seed: int
) -> TransformersModel:
    """The model with random weights, for ``--load-format dummy``."""
    torch.manual_seed(seed)
    return TransformersModel(_random(_hf_config(folder), dtype).to(device).eval(), config)


def _random(config: Any, dtype: torch.dtype) -> Any:
    build: Any = AutoModelForCausalLM.from_config
    return build(config, dtype=dtype, attn_implementation=_NAME)


def describe(folder: Path) -> TransformersConfig:
    """Find out what a model's layers keep of each token, without reading its weights.

    :raises StartupError: it cannot run on a paged cache; the reason is named.
    """
    hf_config = _hf_config(folder)
    text = hf_config.get_text_config(decoder=True)
    with torch.device("meta"):
        model = _random(hf_config, torch.bfloat16)
    running = _Pass()
    tokens = torch.zeros(2, dtype=torch.int64, device="meta")
    with _running_pass(running):
        try:
            hidden = _hidden_states(model.eval(), tokens, tokens)
        except (TypeError, ValueError, AttributeError, RuntimeError, KeyError, IndexError) as error:
            raise _refused(folder, f"a pass over it fails with {type(error).__name__}: {error}") from error
    layers = int(text.num_hidden_layers)
    if len(running.attended) != layers:
        raise _refused(folder, f"only {len(running.attended)} of its {layers} layers attend by the pluggable attention")
    others = set(getattr(text, "layer_types", None) or ()) - _LAYER_TYPES
    if others:
        raise _refused(folder, f"it has layers of type {', '.join(sorted(others))}")
    queries = max(layer.num_heads * layer.shape.head_dim for layer in running.attended)
    return TransformersConfig(
        vocab_size=int(text.vocab_size),
        hidden_size=hidden.shape[-1],
        max_position=_max_position(text),
        cache_layout=CacheLayout(tuple(layer.shape for layer in running.attended)),
        query_elements=queries,
        activation_elements=6 * hidden.shape[-1] + 4 * queries + 4 * _intermediate_size(text),
    )


def _hf_config(folder: Path) -> Any:
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, TypeError) as error:
        raise StartupError(
            f"Transformers cannot read {folder}/config.json: {str(error).splitlines()[0]}",
            "Use a model of a supported architecture, unmodified.",
        ) from error


def _max_position(config: Any) -> int:
    """The context; that before an extension which would change the angles of every sequence of a batch at once."""
    rope = getattr(config, "rope_parameters", None) or {}
    context = int(getattr(config, "max_position_embeddings", 2048))
    if rope.get("rope_type") == "longrope":
        return int(rope.get("original_max_position_embeddings", context))
    return context


def _intermediate_size(config: Any) -> int:
    sizes = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    return int(max(sizes) if isinstance(sizes, (list, tuple)) else sizes)


def _refused(folder: Path, reason: str) -> StartupError:
    return StartupError(
        f"The model in {folder} cannot run on Slipway's paged attention: {reason}.",
        "Use a decoder-only model whose layers are all attention; docs/models.md lists them.",
    )


@contextmanager
def _running_pass(running: _Pass) -> Iterator[None]:
    token = _running.set(running)
    try:
        yield
    finally:
        _running.reset(token)


def _hidden_states(model: PreTrainedModel, token_ids: Tensor, positions: Tensor) -> Tensor:
    output = model.base_model(input_ids=token_ids[None], position_ids=positions[None], use_cache=False)
    hidden: Tensor = output.last_hidden_state[0]
    return hidden


class _Given(nn.Module):
    """In place of a model below its output layer: what it is given is what that model would have returned."""

    def forward(self, inputs_embeds: Tensor, **_: object) -> MoeModelOutputWithPast:
        return MoeModelOutputWithPast(last_hidden_state=inputs_embeds)


def _without_base(model: PreTrainedModel) -> PreTrainedModel:
    """The output layer, and whatever the family does around it."""
    head = copy.copy(model)
    head._modules = {**model._modules, model.base_model_prefix: _Given()}
    return head


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Transformers' interface: ``[1, heads, tokens, head_dim]`` in, ``[1, tokens, heads, head_dim]`` out."""
    running = _running.get()
    heads, tokens, head_dim = query.shape[1:]
    _check_plain(module, key, value, attention_mask, others)
    window = sliding_window or None
    if running.paging is None:
        running.attended.append(_Attended(CacheShape(key.shape[1], head_dim), heads))
        return query.transpose(1, 2).contiguous(), None
    layer: Any = module.layer_idx
    cache = running.caches[layer]
    if not isinstance(cache, LayerCache):
        raise TypeError("attention over keys and values needs a LayerCache")
    qkv = torch.cat([part[0].transpose(0, 1).reshape(tokens, -1) for part in (query, key, value)], dim=1)
    nothing = torch.empty(tokens, 0, device=query.device)
    stored = rotate_and_store(qkv, nothing, nothing, running.paging.slots, cache)
    sinks = None if s_aux is None else s_aux.float()
    variant = AttentionVariant(window=window, softcap=softcap, sinks=sinks)
    scale = head_dim**-0.5 if scaling is None else scaling
    return paged_attention(stored, cache, running.paging, scale, variant)[None], None


def _check_plain(module: nn.Module, key: Tensor, value: Tensor, mask: Tensor | None, others: dict[str, Any]) -> None:
    """:raises ValueError: attention of a kind that pages do not serve."""
    if key.shape != value.shape:
        raise ValueError(f"keys {list(key.shape)} and values {list(value.shape)} differ in size")
    if others.get("is_causal", getattr(module, "is_causal", True)) is False:
        raise ValueError("its attention is not causal")
    biases = [name for name in ("position_bias", "attention_bias", "alibi") if others.get(name) is not None]
    if mask is not None or biases:
        raise ValueError("its attention has a mask or a bias of its own")


def _check_tokens_stay_apart(model: TransformersModel) -> None:
    """Whether two sequences side by side give what each gives by itself.

    :raises StartupError: something besides attention looks at other tokens.
    """
    apart = torch.cat([_probe(model, [sequence]) for sequence in _CHECKED_TOKENS])
    together = _probe(model, _CHECKED_TOKENS)
    difference = float((together - apart).norm() / apart.norm())
    if not difference < _tolerance(model.dtype):
        raise StartupError(
            f"The model does not compute two sequences side by side as it does each alone (they differ by "
            f"{difference:.1%}): something besides its attention looks at other tokens.",
            "Use a decoder-only model whose layers are all attention; docs/models.md lists them.",
        )


def _tolerance(dtype: torch.dtype) -> float:
    """Products of other shapes are summed in another order."""
    return 1e-3 if dtype == torch.float32 else 0.05


@torch.inference_mode()
def _probe(model: TransformersModel, sequences: Sequence[Sequence[int]]) -> Tensor:
    """Hidden states of short sequences, each in a block of its own."""
    block_size = 32
    device, lengths = model.device, [len(sequence) for sequence in sequences]
    caches = []
    for shape in model.config.cache_layout.shapes:
        size = (len(sequences), shape[0], block_size, shape[1])
        caches.append(LayerCache(*(torch.zeros(size, dtype=model.dtype, device=device) for _ in range(2))))
    positions = torch.cat([torch.arange(length) for length in lengths]).to(device)
    blocks = torch.arange(len(sequences)).repeat_interleave(torch.tensor(lengths)).to(device)
    paging = PagedBatch(
        query_starts=torch.tensor([0, *lengths], device=device).cumsum(0).to(torch.int32),
        context_lengths=torch.tensor(lengths, dtype=torch.int32, device=device),
        block_tables=torch.arange(len(sequences), dtype=torch.int32, device=device)[:, None].contiguous(),
        slots=blocks * block_size + positions,
    )
    token_ids = torch.tensor([token for sequence in sequences for token in sequence], device=device)
    token_ids %= model.config.vocab_size
    return model.forward(ModelInput(token_ids, positions, positions + 1, (paging,)), caches).float()


AttentionInterface.register(_NAME, _attention)
