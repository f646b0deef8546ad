"""From options to an engine that can step."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

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
from serving_image.models.checkpoint import Checkpoint, weight_files
from serving_image.models.decoder import Decoder
from serving_image.models.interface import AttentionCache
from serving_image.models.parameters import parameter_specs
from serving_image.models.registry import ModelFolder
from serving_image.models.weights import check_complete, iter_parameters, iter_random_parameters
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
        decoder = _load_decoder(folder, options, device)
    with timeline.phase("key/value cache"):
        plan = plan_kv_cache(
            decoder.config, decoder.dtype, device, options, free_memory(device), cache_dtype=cache_dtype
        )
        caches = allocate_kv_cache(
            decoder.config.cache_layout, plan.num_blocks, plan.block_size, cache_dtype or decoder.dtype, device
        )
    check_batch_invariance(options, decoder, caches)
    if all(isinstance(cache, LayerCache) and not gpu.serves(cache.key) and stores(cache) for cache in caches):
        # The compiled kernels have threads of their own; what is left to torch is too small to share.
        torch.set_num_threads(1)
    runner = _runner(decoder, caches, plan.max_model_len, options)
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
    logger.info("%s", plan.table(decoder.weight_bytes, options.max_num_seqs))
    logger.info("%s", timeline.table())
    return BootedEngine(core, _ready(decoder, plan, options, timeline))


def _ready(decoder: Decoder, plan: KVPlan, options: EngineOptions, timeline: BootTimeline) -> EngineReady:
    return EngineReady(
        device=str(decoder.device),
        dtype=str(decoder.dtype).removeprefix("torch."),
        parameters=decoder.num_parameters,
        vocab_size=decoder.config.vocab_size,
        max_model_len=plan.max_model_len,
        max_num_seqs=options.max_num_seqs,
        block_size=plan.block_size,
        num_blocks=plan.num_blocks,
        kv_cache_bytes=plan.cache_bytes,
        boot=timeline.phases,
    )


def _runner(
    decoder: Decoder, caches: list[AttentionCache], max_model_len: int, options: EngineOptions
) -> Runner | GPURunner:
    if not gpu.serves(caches[0][0]):
        return Runner(decoder, caches, max_model_len)
    return GPURunner(
        decoder,
        caches,
        max_model_len=max_model_len,
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens,
    )


def _load_decoder(folder: ModelFolder, options: EngineOptions, device: torch.device) -> Decoder:
    layout = INT8 if options.quantization == "int8-dynamic" else EXACT
    if options.quantization == "int8-dynamic" and device.type != "cpu":
        raise StartupError("--quantization int8-dynamic is for CPUs.", "Use --device cpu, or leave it out.")
    with _parameters(folder, options, device) as (parameters, dtype):
        return Decoder(folder.decoder, parameters, dtype, device, layout)


@contextmanager
def _parameters(
    folder: ModelFolder, options: EngineOptions, device: torch.device
) -> Iterator[tuple[Iterator[tuple[str, Tensor]], torch.dtype]]:
    """The parameters' stream and dtype, while the files are open."""
    specs = parameter_specs(folder.decoder)
    if options.load_format == "dummy":
        stored = getattr(torch, folder.stated_dtype or "bfloat16", torch.bfloat16)
        dtype = choose_dtype(options.dtype, stored, device)
        yield iter_random_parameters(specs, dtype, options.seed, device), dtype
        return
    with ExitStack() as stack:
        checkpoint = Checkpoint.open(weight_files(folder.path), stack)
        check_complete(checkpoint, specs, folder.names, tied=folder.decoder.tie_word_embeddings)
        dtype = choose_dtype(options.dtype, checkpoint.dtype, device)
        yield iter_parameters(checkpoint, specs, folder.names, dtype, device), dtype
