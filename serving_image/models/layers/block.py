"""One operation of a layer, and its way from and to the residual stream."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from kernels.elementwise import add
from serving_image.models.config import BlockConfig, NormConfig
from serving_image.models.layers.norm import Norm, optional_norm
from serving_image.models.layers.step import Step
from serving_image.models.parameter_store import ParameterStore

RunOperation = Callable[[Tensor, Step, Tensor | None], Tensor]


class Stream:
    """The residual stream: ``value``, and perhaps a term that is not added yet, so that the next norm does it in the
    same pass."""

    def __init__(self, value: Tensor) -> None:
        self._value = value
        self._pending: Tensor | None = None

    def value(self) -> Tensor:
        """The stream, nothing pending."""
        if self._pending is not None:
            self._value, self._pending = add(self._pending, self._value), None
        return self._value

    def normalised(self, norm: Norm) -> Tensor:
        """The norm of the stream."""
        if self._pending is None:
            return norm(self._value)
        result = norm(self._pending, self._value)
        self._pending = None
        return result

    def add(self, term: Tensor) -> None:
        self._value, self._pending = self.value(), term

    def replace(self, value: Tensor) -> None:
        self._value = value


class Block:
    """Reads the stream, computes, and writes to it; see :class:`serving_image.models.config.BlockConfig`."""

    def __init__(
        self, config: BlockConfig, operation: RunOperation, store: ParameterStore, prefix: str, hidden_size: int
    ) -> None:
        self._operation = operation
        norm = config.norm if isinstance(config.norm, NormConfig) else None
        self._norm = optional_norm(norm, store, prefix + "norm", hidden_size)
        self._output_norm = optional_norm(config.output_norm, store, prefix + "output_norm", hidden_size)
        self._stream_norm = optional_norm(config.stream_norm, store, prefix + "stream_norm", hidden_size)
        self._adds_to_input = config.residual == "normalised"
        self.reads_layer_input = config.reads == "layer_input"
        self.shares_input = config.norm == "shared"

    def input(self, stream: Stream) -> Tensor:
        """What the operation works on, from the stream as it is now."""
        return stream.value() if self._norm is None else stream.normalised(self._norm)

    def run(self, x: Tensor, stream: Stream, step: Step) -> None:
        """Compute from ``x`` and write to the stream."""
        if self._output_norm is not None:
            stream.add(self._output_norm(self._operation(x, step, None)))
            return
        value = self._operation(x, step, x if self._adds_to_input else stream.value())
        stream.replace(value if self._stream_norm is None else self._stream_norm(value))


class Layer:
    """The blocks of a layer."""

    def __init__(self, blocks: list[Block]) -> None:
        self._blocks = blocks

    def __call__(self, stream: Stream, step: Step) -> None:
        # Before any block writes: an operation may overwrite the stream in place.
        early = {id(block): block.input(stream) for block in self._blocks if self._reads_early(block)}
        x: Tensor | None = None
        for block in self._blocks:
            if not block.shares_input or x is None:
                x = early[id(block)] if id(block) in early else block.input(stream)
            block.run(x, stream, step)

    @staticmethod
    def _reads_early(block: Block) -> bool:
        return block.reads_layer_input and not block.shares_input
