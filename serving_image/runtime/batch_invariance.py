"""Whether a request's tokens are the same, bit by bit, whatever else is in its batch (``--batch-invariant``).

The compiled CPU kernels sum every output in one fixed order, rotations come from a table, and the sampler draws row by
row, so with them it always holds, and the option costs nothing. The products and the attention of torch choose their
order by the shape of the batch; with them it cannot be kept, and the option refuses to start.
"""

from __future__ import annotations

from kernels import gpu
from kernels.attention import LayerCache
from kernels.attention.native import stores
from serving_image.errors import StartupError
from serving_image.models.config import DecoderConfig
from serving_image.options import EngineOptions


def check_batch_invariance(options: EngineOptions, config: DecoderConfig, cache: LayerCache) -> None:
    """Refuse a promise that cannot be kept.

    :raises StartupError: ``--batch-invariant`` is asked for and the kernels in use, or the model's rotations, depend on
        the batch.
    """
    if not options.batch_invariant:
        return
    if gpu.serves(cache.key) or not stores(cache) or config.hidden_size % 4 or config.intermediate_size % 4:
        raise StartupError(
            "--batch-invariant needs the compiled CPU kernels, which processor, dtype, block size or model exclude.",
            "Use --device cpu on x86-64 with AVX512-BF16, --dtype float32 or bfloat16 and --block-size 32, and build "
            "them with `python -m kernels.native`; or leave --batch-invariant out.",
        )
    if config.rotary.scaling == "dynamic":
        raise StartupError(
            "--batch-invariant cannot be kept for dynamic rotary scaling, whose angles are computed with each batch.",
            "Leave --batch-invariant out for this model.",
        )
