"""From options to an engine that can step."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import NamedTuple

import torch

from kernels import gpu
from kernels.attention import LayerCache
from kernels.attention.native import stores
from kernels.linear import EXACT, INT8
from kernels.native import library
from serving_image.engine.block_pool import BlockPool
from serving_image.engine.core import EngineCore
from serving_image.engine.protocol import EngineReady
from serving_image.engine.scheduler import Scheduler
from serving_image.engine.timeline import BootTimeline
from serving_image.errors import StartupError
from serving_image.models.decoder import Decoder
from serving_image.models.interface import AttentionCache, Model
from serving_image.models.loading import LoadSettings, load_model
from serving_image.models.registry import ModelFolder
from serving_image.options import EngineOptions
from serving_image.runtime.batch_invariance import check_batch_invariance
from serving_image.runtime.device import available_cores, choose_cache_dtype, choose_device, choose_dtype
from serving_image.runtime.gpu.gpu_runner import GPURunner
from serving_image.runtime.kv_storage import allocate_kv_cache
from serving_image.runtime.memory import KVPlan, free_memory, plan_kv_cache
from serving_image.runtime.runner import Runner

logger = logging.getLogger(__name__)


class BootedEngine(NamedTuple):
    core: EngineCore
    ready: EngineReady


def boot(options: EngineOptions, timeline: BootTimeline) -> BootedEngine:
    """Load the model, size the cache and say what came of it.

    :raises StartupError: the model cannot be served as asked.
    """
    threads = options.threads or available_cores()
    torch.set_num_threads(threads)
    library.set_threads(threads)
    device = choose_device(options.device)
    cache_dtype = choose_cache_dtype(options.kv_cache_dtype, device)
    if device.type == "cpu" and library.processor_suffices() and library.load() is None:
        logger.warning("the compiled CPU kernels are not built, which is slower: run python -m kernels.native")
    with timeline.phase("configuration"):
        folder = ModelFolder.open(Path(options.model))
    with timeline.phase("weights"):
        model = _load_model(folder, options, device)
    with timeline.phase("key/value cache"):
        plan = plan_kv_cache(model.config, model.dtype, device, options, free_memory(device), cache_dtype=cache_dtype)
        caches = allocate_kv_cache(
            model.config.cache_layout, plan.num_blocks, plan.block_size, cache_dtype or model.dtype, device
        )
    check_batch_invariance(options, model, caches)
    if isinstance(model, Decoder) and all(_is_compiled(cache) for cache in caches):
        # The compiled kernels have threads of their own; what is left to torch is too small to share.
        torch.set_num_threads(1)
    runner = _runner(model, caches, plan.max_model_len, options)
    if isinstance(runner, GPURunner) and device.type == "cuda":
        with timeline.phase("kernels"):
            runner.compile_kernels()
    pool = BlockPool(plan.num_blocks, plan.demand, enable_prefix_caching=options.enable_prefix_caching)
    core = EngineCore(
        runner=runner,
        pool=pool,
        scheduler=Scheduler(pool, options.max_num_seqs, options.max_num_batched_tokens),
        max_model_len=plan.max_model_len,
        seed=options.seed,
        clock=time.monotonic,
    )
    logger.info("%s", plan.table(model.weight_bytes, options.max_num_seqs))
    logger.info("%s", timeline.table())
    return BootedEngine(core, _ready(model, plan, options, timeline))


def _is_compiled(cache: AttentionCache) -> bool:
    """Whether compiled CPU kernels read and write the cache."""
    return isinstance(cache, LayerCache) and not gpu.serves(cache.key) and stores(cache)


def _ready(model: Model, plan: KVPlan, options: EngineOptions, timeline: BootTimeline) -> EngineReady:
    return EngineReady(
        device=str(model.device),
        dtype=str(model.dtype).removeprefix("torch."),
        parameters=model.num_parameters,
        vocab_size=model.config.vocab_size,
        max_model_len=plan.max_model_len,
        max_num_seqs=options.max_num_seqs,
        block_size=plan.block_size,
        num_blocks=plan.num_blocks,
        kv_cache_bytes=plan.cache_bytes,
        boot=timeline.phases,
    )


def _runner(
    model: Model, caches: list[AttentionCache], max_model_len: int, options: EngineOptions
) -> Runner | GPURunner:
    if not gpu.serves(caches[0][0]):
        return Runner(model, caches, max_model_len)
    return GPURunner(
        model,
        caches,
        max_model_len=max_model_len,
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens,
    )


def _load_model(folder: ModelFolder, options: EngineOptions, device: torch.device) -> Model:
    if options.quantization == "int8-dynamic" and device.type != "cpu":
        raise StartupError("--quantization int8-dynamic is for CPUs.", "Use --device cpu, or leave it out.")
    if options.quantization == "int8-dynamic" and folder.description is None:
        raise StartupError(
            f"--quantization int8-dynamic is not for {folder.config.architecture}, which runs through Transformers.",
            "Leave it out.",
        )
    settings = LoadSettings(
        device=device,
        layout=INT8 if options.quantization == "int8-dynamic" else EXACT,
        choose_dtype=lambda stored: choose_dtype(options.dtype, stored, device),
        load_format=options.load_format,
        seed=options.seed,
    )
    return load_model(folder, settings)
