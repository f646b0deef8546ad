"""Launches steps on the device and returns at once."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from kernels import gpu
from kernels.attention import LayerCache
from kernels.attention.launch import LaunchPlan, plan_launch
from serving_image.engine.request import Request
from serving_image.engine.step import ScheduledRequest, StepResult
from serving_image.models.interface import AttentionCache, Model, ModelConfig
from serving_image.runtime.failures import RAISED
from serving_image.runtime.gpu.decode_graphs import DecodeGraphs, GraphKey
from serving_image.runtime.gpu.made_up_steps import MadeUpSteps
from serving_image.runtime.gpu.moment import mark
from serving_image.runtime.gpu.pending_step import GPUStep, LaunchedItems
from serving_image.runtime.gpu.request_rows import RequestRows
from serving_image.runtime.gpu.step_inputs import StepInputs
from serving_image.runtime.gpu.step_sampler import StepSampler

logger = logging.getLogger(__name__)


class GPURunner:
    """The model and its cache on a device that works in order, while the host goes on.

    A step is launched in the caller's thread. Nothing there waits for the device, but where a kernel is compiled, a
    CUDA graph captured or a computation fails. Steps may be launched before those before them have been read, but not
    more than one: the host's buffers are two.
    """

    def __init__(
        self,
        model: Model,
        caches: Sequence[AttentionCache],
        *,
        max_model_len: int,
        max_num_seqs: int,
        max_num_batched_tokens: int,
    ) -> None:
        self._model = model
        self._caches = caches
        config, block_size = model.config, caches[0].block_size
        self._num_groups = len(config.cache_layout.groups)
        self._device = gpu.device_of(caches[0][0])
        # Those of the layer with the fewest: splits that another one could do without cost it little.
        self._programs = min(_programs(config, cache, self._device) for cache in caches)
        windows = [shape.window for shape in config.cache_layout.shapes]
        self._window = None if None in windows else max(window for window in windows if window is not None)
        max_blocks = -(-max_model_len // block_size)
        self._rows = RequestRows(
            max_num_seqs, max_model_len, max_blocks, config.vocab_size, model.device, self._num_groups
        )
        max_tokens = max(max_num_seqs, max_num_batched_tokens)
        self._inputs = StepInputs(self._rows.tables, max_num_seqs, max_tokens, block_size)
        self._graphs = DecodeGraphs(self._decode, max_num_seqs, model.device)
        self._sampler = StepSampler(model, self._rows.sampling)
        self._max_model_len, self._max_tokens = max_model_len, max_num_batched_tokens
        self._first: GPUStep | None = None

    @property
    def vocab_size(self) -> int:
        return self._model.config.vocab_size

    @torch.inference_mode()
    def launch(self, scheduled: Sequence[ScheduledRequest]) -> GPUStep:
        """Start computing and return at once. Raises only if the device is lost for good."""
        started = mark(self._model.device)
        result = StepResult()
        # Attention takes sequences of one token first.
        items = sorted(scheduled, key=lambda item: item.num_tokens > 1)
        launched = self._launch(items, result)
        step = GPUStep(started, mark(self._model.device), launched, result)
        if self._first is None and any(items.chosen is not None for items in launched):
            self._first = step
        return step

    def forget(self, requests: Sequence[Request]) -> None:
        """Give the rows of requests that have ended to others."""
        self._rows.forget(requests)

    def compile_kernels(self) -> None:
        """Run steps of made-up requests, so that real ones need not wait for the compiler.

        To be called once, before any real step; what is in the cache's first block is lost.

        :raises RuntimeError: a step failed on the host; the log says how.
        """
        from kernels.gpu.compile_ahead import compiling_ahead  # noqa: PLC0415 - the only part of this that needs Triton

        block_size = self._caches[0].block_size
        steps = MadeUpSteps(self._graphs.sizes, self._max_model_len, self._max_tokens, block_size, self._num_groups)
        with compiling_ahead():
            self._run_made_up(steps.many())
        # What the device was told there it has not taken in.
        self.forget(steps.requests)
        self._run_made_up(steps.few())
        self.forget(steps.requests)

    @torch.inference_mode()
    def _run_made_up(self, steps: Iterable[Sequence[ScheduledRequest]]) -> None:
        for items in steps:
            result = StepResult()
            self._launch(items, result)
            if result.failed:
                raise RuntimeError("a made-up step failed")

    def _launch(self, items: Sequence[ScheduledRequest], result: StepResult) -> list[LaunchedItems]:
        """Launch ``items``. If that raises, each by itself, so that only the culprit fails."""
        try:
            return [self._launch_together(items)]
        except torch.AcceleratorError:
            raise
        except Exception:
            if self._model.device.type == "cuda":
                torch.cuda.synchronize(self._model.device)  # raises if the device is what failed
            if len(items) > 1:
                logger.exception("a step of %d requests failed; each is tried by itself", len(items))
                return [launched for item in items for launched in self._launch([item], result)]
            logger.exception("request %s failed", items[0].request.request_id)
            result.failed[items[0].request] = RAISED
            return []

    def _launch_together(self, items: Sequence[ScheduledRequest]) -> LaunchedItems:
        rows = self._rows.admit([item.request for item in items])
        decodes = items[-1].num_tokens == 1
        size = self._graphs.size_for(len(items)) if decodes else len(items)
        plan = self._plan(items, size - len(items))
        self._inputs.write(items, rows, size - len(items), plan.split_tokens)
        if decodes:
            answered = self._first is not None and self._first.answered
            hidden = self._graphs.run(GraphKey(size, plan.splits), may_capture=answered)
        else:
            num_tokens = sum(item.num_tokens for item in items)
            hidden = self._model.forward(self._inputs.batch(len(items), num_tokens, plan), self._caches)
        reports = [
            self._sampler.report_prompt(part, item, row)
            for item, row, part in zip(items, rows, _by_item(hidden, items), strict=True)
            if item.request.sampling.prompt_logprobs is not None and item.start < item.request.num_prompt_tokens
        ]
        if not any(item.samples for item in items):
            return LaunchedItems(items, None, reports)
        sampled = self._inputs.sampled(size)
        # The output layer is a quarter of a small model's work, so only each item's last row goes through it.
        last = hidden if decodes else hidden.index_select(0, sampled.last_tokens)
        return LaunchedItems(items, self._sampler.choose(last, items, rows, sampled), reports)

    def _plan(self, items: Sequence[ScheduledRequest], padding: int) -> LaunchPlan:
        queries = [item.num_tokens for item in items] + [1] * padding
        contexts = [item.start + item.num_tokens for item in items] + [0] * padding
        return plan_launch(queries, contexts, self._programs, self._device, self._window)

    def _decode(self, key: GraphKey) -> Tensor:
        """A forward pass of single tokens, out of the inputs' memory."""
        plan = LaunchPlan(decodes=key.rows, max_queries=0, splits=key.splits, split_tokens=0)
        return self._model.forward(self._inputs.batch(key.rows, key.rows, plan), self._caches)


def _programs(config: ModelConfig, cache: AttentionCache, device: gpu.Device) -> int:
    """Programs that read one context in a layer."""
    if isinstance(cache, LayerCache):
        return cache.kv_heads
    from kernels.latent_attention.triton import head_groups  # noqa: PLC0415 - needs Triton

    return head_groups(config.query_elements // cache.width, cache, device)


def _by_item(hidden: Tensor, items: Sequence[ScheduledRequest]) -> list[Tensor]:
    """Each item's rows of ``hidden``."""
    starts = [0, *accumulate(item.num_tokens for item in items)]
    return [hidden[start : start + item.num_tokens] for start, item in zip(starts, items, strict=False)]
