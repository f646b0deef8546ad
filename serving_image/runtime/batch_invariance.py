"""Whether a request's tokens are the same, bit by bit, whatever else is in its batch (``--batch-invariant``).

The compiled CPU kernels sum every output in one fixed order, rotations come from a table, and the sampler draws row by
row, so with them it always holds, and the option costs nothing. The products and the attention of torch choose their
order by the shape of the batch; with them it cannot be kept, and the option refuses to start.
"""

from __future__ import annotations

from collections.abc import Sequence

from kernels import gpu
from kernels.attention import LayerCache
from kernels.attention.native import stores
from serving_image.errors import StartupError
from serving_image.models.config import AttentionConfig, DecoderConfig, FeedForwardConfig
from serving_image.models.decoder import Decoder
from serving_image.models.interface import AttentionCache, Model
from serving_image.models.parameters import parameter_specs
from serving_image.options import EngineOptions


def check_batch_invariance(options: EngineOptions, model: Model, caches: Sequence[AttentionCache]) -> None:
    """Refuse a promise that cannot be kept.

    :raises StartupError: ``--batch-invariant`` is asked for and the kernels in use, or the model's rotations, depend on
        the batch.
    """
    if not options.batch_invariant:
        return
    compiled = isinstance(model, Decoder) and _products_are_compiled(model.config)
    if not compiled or not all(map(_is_compiled, caches)):
        raise StartupError(
            "--batch-invariant needs the compiled CPU kernels, which processor, dtype, block size or model exclude.",
            "Use --device cpu on x86-64 with AVX512-BF16, --dtype float32 or bfloat16 and --block-size 32, and build "
            "them with `python -m kernels.native`; or leave --batch-invariant out.",
        )
    if model.config.depends_on_lengths:
        raise StartupError(
            "--batch-invariant cannot be kept for rotary scaling that follows the sequence's length, whose angles are "
            "computed with each batch.",
            "Leave --batch-invariant out for this model.",
        )


def _is_compiled(cache: AttentionCache) -> bool:
    return isinstance(cache, LayerCache) and not gpu.serves(cache.key) and stores(cache)


def _products_are_compiled(config: DecoderConfig) -> bool:
    """Whether all products are with matrices that the kernels take: of dense layers, their rows multiples of four."""
    operations = (block.operation for layer in config.layers for block in layer)
    dense = all(isinstance(operation, (AttentionConfig, FeedForwardConfig)) for operation in operations)
    return dense and not any(spec.shape[-1] % 4 for spec in parameter_specs(config).values() if len(spec.shape) == 2)
