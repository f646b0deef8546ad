"""From a checkpoint's tensors to the decoder's parameters, one by one, with proof that none is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from serving_image.errors import StartupError
from serving_image.models.checkpoint import Checkpoint, some
from serving_image.models.parameters import ParameterSpec
from serving_image.models.tensor_names import Computed, Source, TensorNames

_PATTERN_LENGTH = 1_000_003

Specs = Mapping[str, ParameterSpec]


def check_complete(checkpoint: Checkpoint, specs: Specs, names: TensorNames, *, tied: bool) -> None:
    """Prove, from the files' headers alone, that every parameter will be filled exactly and no tensor is left over.

    :param tied: the output layer is the embedding, whose copy may be there.
    :raises StartupError: naming the tensors that are missing, unexpected or of another shape.
    """
    checkpoint = checkpoint.renamed(names.canonical)
    origins = [names.origin(name, spec) for name, spec in specs.items()]
    wanted = {
        source.name: source.stored_shape for origin in origins if not isinstance(origin, Computed) for source in origin
    }
    missing = sorted(wanted.keys() - checkpoint.location.keys())
    if missing:
        raise _mismatch(checkpoint, "lacks", missing)
    left = sorted(checkpoint.location.keys() - wanted.keys())
    unexpected = [checkpoint.stored_name(name) for name in left if not names.is_redundant(name, tied=tied)]
    if unexpected:
        raise _mismatch(checkpoint, "has unexpected", unexpected)
    not_floating = [checkpoint.stored_name(name) for name in sorted(wanted) if checkpoint.dtype_of(name) is None]
    if not_floating:
        raise _mismatch(checkpoint, "stores no floating-point numbers in", not_floating)
    wrong = [
        f"{checkpoint.stored_name(name)} {list(checkpoint.shape(name))} instead of {list(shape)}"
        for name, shape in wanted.items()
        if checkpoint.shape(name) != shape
    ]
    if wrong:
        raise _mismatch(checkpoint, "has the wrong shape for", wrong)


def iter_parameters(
    checkpoint: Checkpoint, specs: Specs, names: TensorNames, dtype: torch.dtype, device: torch.device
) -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter once, in ``dtype`` or, if it is wide, float32, on ``device``, in the order of ``specs``.

    On a CPU a parameter is a view of the mapped file, or of memory that the next one may take: whoever keeps it must
    copy it. To a GPU each tensor is copied from the mapped file, and joined with others there. No more than one
    parameter, and what a transform makes of one tensor, exists besides.
    """
    checkpoint = checkpoint.renamed(names.canonical)
    staging = _Staging(device)
    for name, spec in specs.items():
        kept = torch.float32 if spec.wide else dtype
        origin = names.origin(name, spec)
        if isinstance(origin, Computed):
            yield name, origin.make().to(device, kept)
        elif len(origin) == 1:
            yield name, staging.moved(_read(checkpoint, origin[0]), kept)
        else:
            joined, row = staging.empty(spec.shape, kept), 0
            for source in origin:
                joined[row : row + source.rows].copy_(_read(checkpoint, source))
                row += source.rows
            yield name, joined


class _Staging:
    """Where parameters get their dtype, order and neighbours, one after the other.

    On a CPU always in the same memory: blocks freed and asked for anew would leave holes between what is kept (45 % of
    a model of 185 MB). A GPU's allocator has no such holes.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._memory = torch.empty(0, dtype=torch.uint8)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory for one parameter."""
        if self._device.type != "cpu":
            return torch.empty(shape, dtype=dtype, device=self._device)
        size = torch.Size(shape).numel() * dtype.itemsize
        if size > self._memory.numel():
            # The old one goes first.
            self._memory = torch.empty(0, dtype=torch.uint8)
            self._memory = torch.empty(size, dtype=torch.uint8)
        return self._memory[:size].view(dtype).view(shape)

    def moved(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """A tensor on the device, in rows; where nothing has to change, itself."""
        if self._device.type != "cpu" or (tensor.dtype == dtype and tensor.is_contiguous()):
            return tensor.to(self._device, dtype)
        return self.empty(tensor.shape, dtype).copy_(tensor)


def _read(checkpoint: Checkpoint, source: Source) -> Tensor:
    return source.transform.apply(checkpoint.read(source.name))


def iter_random_parameters(
    specs: Specs, dtype: torch.dtype, seed: int, device: torch.device
) -> Iterator[tuple[str, Tensor]]:
    """Random parameters on ``device`` for ``--load-format dummy``: norms 1, biases 0, matrices normal with deviation
    0.02; the same ones on every device.

    Matrices are pieces of one long pattern, each from another offset: drawing every number would take longer than
    reading a checkpoint (1.3 s for 246M parameters).
    """
    generator = torch.Generator().manual_seed(seed)
    # A prime length, so that the rows of a matrix, whatever its width, do not repeat.
    pattern = torch.empty(_PATTERN_LENGTH).normal_(0, 0.02, generator=generator).to(device, dtype)
    for name, spec in specs.items():
        kept = torch.float32 if spec.wide else dtype
        if name.endswith("bias"):
            yield name, torch.zeros(spec.shape, dtype=kept, device=device)
        elif len(spec.shape) == 1:
            yield name, torch.ones(spec.shape, dtype=kept, device=device)
        else:
            size = torch.Size(spec.shape).numel()
            offset = int(torch.randint(_PATTERN_LENGTH, (1,), generator=generator))
            yield name, pattern.repeat((offset + size) // _PATTERN_LENGTH + 1)[offset : offset + size].view(spec.shape)


def _mismatch(checkpoint: Checkpoint, verb: str, names: list[str]) -> StartupError:
    return StartupError(
        f"The checkpoint in {checkpoint.folder} {verb} {some(names)}.",
        "Its files do not belong to its config.json; download the model again.",
    )
