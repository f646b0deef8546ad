#!/usr/bin/env python3
"""How much of the key/value cache requests of windowed models hold, beside what they would if nothing were given back.

    .venv/bin/python benchmarks/windowed_cache.py

The engine's own scheduler and block pool, over the cache layouts that its families make of the configurations which
Transformers has as defaults; no weights and no device. Writes benchmarks/results/windowed_cache.md.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

BENCHMARKS = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCHMARKS.parent)]

from transformers import (  # noqa: E402
    Cohere2Config,
    Gemma2Config,
    Gemma3TextConfig,
    GptOssConfig,
    MistralConfig,
    PretrainedConfig,
)

from serving_image.engine.block_demand import BlockDemand  # noqa: E402
from serving_image.engine.block_pool import BlockPool  # noqa: E402
from serving_image.engine.protocol import SamplingParams  # noqa: E402
from serving_image.engine.request import Request  # noqa: E402
from serving_image.engine.scheduler import Scheduler  # noqa: E402
from serving_image.models.cache_layout import CacheLayout  # noqa: E402
from serving_image.models.registry import ModelFolder  # noqa: E402

PAGE = BENCHMARKS / "results" / "windowed_cache.md"
MODELS: tuple[tuple[str, type[PretrainedConfig]], ...] = (
    ("MistralForCausalLM", MistralConfig),
    ("Gemma2ForCausalLM", Gemma2Config),
    ("Gemma3ForCausalLM", Gemma3TextConfig),
    ("Cohere2ForCausalLM", Cohere2Config),
    ("GptOssForCausalLM", GptOssConfig),
)
CONTEXTS = (8192, 32768)
BLOCK_SIZE, STEP_TOKENS, ELEMENT_BYTES = 32, 2048, 2
MIB = 1 << 20


class Held(NamedTuple):
    """MiB that one request holds: at most while its prompt is computed, after 64 decodes, and without windows."""

    prefill: float
    decode: float
    everything: float


def layout_of(architecture: str, config_class: type[PretrainedConfig]) -> CacheLayout:
    """What the engine makes of a family's default configuration."""
    with tempfile.TemporaryDirectory() as folder:
        config_class(architectures=[architecture]).save_pretrained(folder)
        description = ModelFolder.open(Path(folder)).description
    if description is None:
        raise SystemExit(f"{architecture} is not served natively")
    return description.decoder.cache_layout


def held(layout: CacheLayout, context: int) -> Held:
    """Schedule one prompt of ``context`` tokens and 64 answers, each step read before the next."""
    demand = BlockDemand(BLOCK_SIZE, tuple(group.window for group in layout.groups), STEP_TOKENS)
    pool = BlockPool(demand.most(context + 65), demand)
    scheduler = Scheduler(pool, 1, STEP_TOKENS)
    request = Request("r", [0] * context, context, SamplingParams(max_tokens=65), 0, context + 65)
    scheduler.add(request)
    most = 0
    while len(request.tokens) < context + 64:
        for item in scheduler.schedule(0.0).items:
            most = max(most, pool.num_held)
            pool.register(request.blocks, request.tokens, item.start + item.num_tokens)
            if item.samples:
                request.tokens.append(0)
                request.num_pending -= 1
    block = BLOCK_SIZE * layout.elements_per_block_token * ELEMENT_BYTES / MIB
    elements = sum(shape.elements for shape in layout.shapes)
    everything = demand.blocks_for(context + 64) * BLOCK_SIZE * elements * ELEMENT_BYTES / MIB
    return Held(most * block, pool.num_held * block, everything)


def lines() -> Iterator[str]:
    """The page."""
    yield "# What windowed layers hold of the cache"
    yield ""
    yield (
        f"By `benchmarks/windowed_cache.py`: MiB of one request in bfloat16, blocks of {BLOCK_SIZE} tokens, prompts in "
        f"steps of {STEP_TOKENS:,} tokens; counted, not timed. *Everything* is what all layers would hold if windows "
        "gave nothing back. Sizes are the defaults of Transformers' configurations."
    )
    yield ""
    yield "| configuration | layers: windows | groups | context | everything | at most, in the prompt | decoding | |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    for architecture, config_class in MODELS:
        layout = layout_of(architecture, config_class)
        windows = [shape.window for shape in layout.shapes]
        kinds = ", ".join(f"{windows.count(w)}: {w or 'full'}" for w in dict.fromkeys(windows))
        for context in CONTEXTS:
            found = held(layout, context)
            yield (
                f"| {config_class.__name__} | {kinds} | {len(layout.groups)} | {context:,} | {found.everything:,.0f} | "
                f"{found.prefill:,.0f} | {found.decode:,.0f} | × {found.decode / found.everything:.2f} |"
            )


if __name__ == "__main__":
    PAGE.write_text("\n".join(lines()) + "\n")
    print(PAGE.read_text())
