"""Runs a step's tokens through the decoder and chooses the next ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kernels.attention import QuerySpan
from serving_image.engine.request import Request
from serving_image.engine.scheduler import ScheduledRequest
from serving_image.models.decoder import Decoder, DecoderInput, LayerCache
from serving_image.runtime.sampler import SamplingRow, sample, uniform


class Runner:
    """The decoder, its cache and how a schedule becomes a batch for them."""

    def __init__(self, decoder: Decoder, caches: list[LayerCache], block_size: int) -> None:
        self._decoder = decoder
        self._caches = caches
        self._block_size = block_size

    @property
    def vocab_size(self) -> int:
        return self._decoder.config.vocab_size

    @torch.inference_mode()
    def run(self, scheduled: Sequence[ScheduledRequest]) -> list[int]:
        """Compute the scheduled tokens.

        :returns: one new token id for each scheduled request that samples, in order.
        """
        hidden = self._decoder.forward(self._batch(scheduled), self._caches)
        last_rows, rows = [], []
        end = 0
        for item in scheduled:
            end += item.num_tokens
            if item.samples:
                last_rows.append(end - 1)
                rows.append(_sampling_row(item.request))
        if not rows:
            return []
        # The output layer is a quarter of a small model's work, so only rows that are sampled go through it.
        logits = self._decoder.logits(hidden[torch.tensor(last_rows, device=hidden.device)])
        return sample(logits, rows).tolist()

    def _batch(self, scheduled: Sequence[ScheduledRequest]) -> DecoderInput:
        token_ids: list[int] = []
        positions: list[int] = []
        lengths: list[int] = []
        slots: list[int] = []
        spans: list[QuerySpan] = []
        for request, start, num_tokens in scheduled:
            stop = start + num_tokens
            spans.append(QuerySpan(len(token_ids), num_tokens, request.blocks.runs(stop, self._block_size)))
            token_ids += request.tokens[start:stop]
            positions += range(start, stop)
            lengths += (max(request.num_prompt_tokens, position + 1) for position in range(start, stop))
            slots += request.blocks.slots(start, stop, self._block_size)
        # One transfer to the device instead of four.
        packed = torch.tensor([token_ids, positions, lengths, slots]).to(self._decoder.device, non_blocking=True)
        return DecoderInput(packed[0], packed[1], packed[2], packed[3], spans)


def _sampling_row(request: Request) -> SamplingRow:
    sampling = request.sampling
    return SamplingRow(
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        uniform=uniform(request.seed, request.num_output_tokens),
        banned=sampling.stop_token_ids if request.stop_tokens_banned else frozenset(),
    )
