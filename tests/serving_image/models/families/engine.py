"""A model on a paged cache, step by step, without the scheduler: what it scores at every position."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from kernels.attention import LayerCache, PagedBatch
from kernels.latent_attention import LatentCache
from kernels.linear import EXACT
from serving_image.models.cache_layout import CacheShape, LatentShape
from serving_image.models.interface import AttentionCache, Model, ModelInput
from serving_image.models.loading import LoadSettings, load_model
from serving_image.models.registry import ModelFolder

BLOCK_SIZE = 32


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Model:
    """The model of a folder, on the CPU."""
    settings = LoadSettings(
        device=torch.device("cpu"), layout=EXACT, choose_dtype=lambda _: dtype, load_format="auto", seed=0
    )
    return load_model(ModelFolder.open(folder), settings)


class Run(NamedTuple):
    """A sequence that was computed: its tokens, and the scores after each of them but the last."""

    tokens: list[int]
    scores: Tensor


def run(model: Model, prompts: Sequence[Sequence[int]], new_tokens: int, chunks: Sequence[int] = ()) -> list[Run]:
    """Greedy decoding of all prompts side by side, on a cache full of NaN.

    :param chunks: sizes of the prompts' first pieces; what is left is one piece.
    """
    sequences = [list(prompt) for prompt in prompts]
    longest = max(map(len, sequences)) + new_tokens
    blocks = -(-longest // BLOCK_SIZE)
    caches = [_cache(shape, len(prompts) * blocks, model.dtype) for shape in model.config.cache_layout.shapes]
    # Neighbouring blocks of a sequence lie apart.
    tables = torch.arange(len(prompts) * blocks, dtype=torch.int32).view(blocks, -1).t().contiguous()
    done, scores = [0] * len(prompts), [[] for _ in prompts]
    for size in [*chunks, longest]:
        _advance(model, caches, tables, sequences, done, scores, size)
    for _ in range(new_tokens):
        for sequence, rows in zip(sequences, scores, strict=True):
            sequence.append(int(rows[-1][-1].argmax()))
        if new_tokens:
            _advance(model, caches, tables, sequences, done, scores, 1)
    return [Run(sequence, torch.cat(rows)[:-1]) for sequence, rows in zip(sequences, scores, strict=True)]


def _cache(shape: CacheShape | LatentShape, blocks: int, dtype: torch.dtype) -> AttentionCache:
    def full(*size: int) -> Tensor:
        return torch.full(size, float("nan"), dtype=dtype)

    if isinstance(shape, LatentShape):
        return LatentCache(full(blocks, BLOCK_SIZE, shape.elements), shape.latent_dim)
    size = (blocks, shape.kv_heads, BLOCK_SIZE, shape.head_dim)
    return LayerCache(full(*size), full(*size))


@torch.inference_mode()
def _advance(
    model: Model,
    caches: list[AttentionCache],
    tables: Tensor,
    sequences: list[list[int]],
    done: list[int],
    scores: list[list[Tensor]],
    size: int,
) -> None:
    """The next tokens of every sequence that has some left, ``size`` at most."""
    live = [index for index, sequence in enumerate(sequences) if done[index] < len(sequence)]
    if not live:
        return
    counts = [min(size, len(sequences[index]) - done[index]) for index in live]
    positions = [torch.arange(done[index], done[index] + count) for index, count in zip(live, counts, strict=True)]
    slots = [
        tables[index][where // BLOCK_SIZE].long() * BLOCK_SIZE + where % BLOCK_SIZE
        for index, where in zip(live, positions, strict=True)
    ]
    paging = PagedBatch(
        query_starts=torch.tensor([0, *counts]).cumsum(0).to(torch.int32),
        context_lengths=torch.tensor([int(where[-1]) + 1 for where in positions], dtype=torch.int32),
        block_tables=tables[live].contiguous(),
        slots=torch.cat(slots),
    )
    inputs = ModelInput(
        token_ids=torch.cat(
            [torch.tensor(sequences[index])[where] for index, where in zip(live, positions, strict=True)]
        ),
        positions=torch.cat(positions),
        sequence_lengths=torch.cat(
            [torch.full_like(where, len(sequences[index])) for index, where in zip(live, positions, strict=True)]
        ),
        pagings=(paging,) * len(model.config.cache_layout.groups),
    )
    logits = model.logits(model.forward(inputs, caches))
    for index, count, rows in zip(live, counts, logits.split(counts), strict=True):
        scores[index].append(rows.clone())
        done[index] += count
