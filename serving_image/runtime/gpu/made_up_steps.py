"""Steps of made-up requests, which have the kernels compiled that real ones will need.

What a kernel is compiled for depends on some of its arguments' values: whether a number is 1 or a multiple of 16, into
how many parts a context or a vocabulary is divided, by how many rows a weight is multiplied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from serving_image.engine.block_table import BlockSpan, GroupTable
from serving_image.engine.protocol import SamplingParams
from serving_image.engine.request import Request
from serving_image.engine.step import ScheduledRequest

_SAMPLING = (
    SamplingParams(temperature=1.0, top_k=2, top_p=0.9),
    SamplingParams(temperature=0.0, frequency_penalty=0.1),
    SamplingParams(temperature=0.0, logprobs=1),
    SamplingParams(temperature=0.0),
)
_SHORTEST_CONTEXT = 32


class MadeUpSteps:
    """Requests of nothing but token 0, all in the cache's first block.

    :param batches: how many requests decode together, in rising order; the last is as many as may run.
    :param max_model_len: the longest context in tokens.
    :param max_tokens: the most tokens of a step.
    :param num_groups: groups of layers, whose blocks differ otherwise.
    """

    def __init__(
        self, batches: Sequence[int], max_model_len: int, max_tokens: int, block_size: int, num_groups: int
    ) -> None:
        self._max_model_len = max_model_len
        self._longest_prompt = min(max_tokens, max_model_len)
        self._block_size = block_size
        self._num_groups = num_groups
        self._batches = batches
        self.requests = [_request(index) for index in range(max(batches[-1], len(_SAMPLING)))]

    def few(self) -> Iterator[list[ScheduledRequest]]:
        """A prompt and a decode."""
        num_tokens = min(2, self._longest_prompt)
        together = min(2, self._batches[-1], self._longest_prompt // num_tokens)
        yield [self._item(request, 0, num_tokens) for request in self.requests[:together]]
        yield [self._item(request, num_tokens, 1) for request in self.requests[:together]]

    def many(self) -> Iterator[list[ScheduledRequest]]:
        """Prompts and batches of several sizes, each kind of sampling, and contexts of each length that is divided
        otherwise."""
        powers = [1 << exponent for exponent in range(1, self._longest_prompt.bit_length())]
        for num_tokens in (*powers, self._longest_prompt - 1, self._longest_prompt):
            yield [self._item(self.requests[0], 0, max(1, num_tokens))]
        for count in self._batches:
            yield [self._item(request, 2, 1) for request in self.requests[:count]]
        for request in self.requests[: len(_SAMPLING)]:
            yield [self._item(request, 2, 1)]
        context = _SHORTEST_CONTEXT
        while context < self._max_model_len:
            yield [self._item(self.requests[-1], context - 1, 1)]
            context *= 2
        yield [self._item(self.requests[-1], self._max_model_len - 1, 1)]

    def _item(self, request: Request, start: int, num_tokens: int) -> ScheduledRequest:
        start = min(start, self._max_model_len - 1)
        stop = min(start + num_tokens, self._max_model_len)
        span = BlockSpan(0, (0,) * -(-stop // self._block_size))
        blocks = (span,) * self._num_groups
        return ScheduledRequest(request, start, stop - start, blocks, samples=stop < self._max_model_len)


def _request(index: int) -> Request:
    sampling = _SAMPLING[min(index, len(_SAMPLING) - 1)]
    request = Request(f"made up {index}", [0], 1, sampling, seed=index, max_length=2)
    request.blocks.groups = (GroupTable(0, [0]),)
    return request
