"""Launches steps of a model whose kernels are compiled for a GPU that is not there, and says as JSON what was compiled.

``ahead`` are the kernels that were compiled at boot, ``later`` those that a varied load wanted besides, and
``launched_ahead`` what was launched of a step while it only was to be compiled. A process of its own, because Triton
decides once whether to interpret.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import torch
from triton import knobs

from kernels.gpu import Device
from kernels.gpu.compile_ahead import compiling_ahead
from kernels.gpu.compile_only import compiling_for
from serving_image.engine.block_table import BlockSpan, GroupTable
from serving_image.engine.protocol import SamplingParams
from serving_image.engine.request import Request
from serving_image.engine.step import ScheduledRequest
from serving_image.runtime.gpu.gpu_runner import GPURunner
from tests.serving_image.generation import start

MAX_NUM_SEQS, MAX_MODEL_LEN, BUDGET, BLOCK = 40, 1024, 256, 32


def made(choose: random.Random, name: str) -> Request:
    truncated = choose.random() < 0.3
    params = SamplingParams(
        temperature=choose.choice([0.0, 0.7]),
        top_p=0.9 if truncated else 1.0,
        top_k=choose.choice([0, 40]) if truncated else 0,
        presence_penalty=choose.choice([0.0, 0.0, 0.0, 0.5]),
        logprobs=choose.choice([None, None, None, 0, 5, 20]),
    )
    request = Request(name, [1], 1, params, seed=1, max_length=MAX_MODEL_LEN)
    request.blocks.groups = (GroupTable(0, [0]),)
    return request


def step(choose: random.Random, requests: list[Request], num_groups: int) -> list[ScheduledRequest]:
    """Prompts of any length that the budget allows, or decodes, or both."""
    items = []
    budget = choose.choice([0, 0, 1, 16, BUDGET])
    for request in choose.sample(requests, choose.choice([1, 2, 5, 17, 32, 33])):
        num_tokens = min(budget, choose.choice([1, 16, 100, 128]))
        budget -= num_tokens
        start = choose.randrange(MAX_MODEL_LEN - 128)
        stop = start + max(1, num_tokens)
        blocks = (BlockSpan(0, (0,) * -(-stop // BLOCK)),) * num_groups
        items.append(ScheduledRequest(request, start, stop - start, blocks, choose.random() < 0.9))
    return items


def main(model: Path) -> dict[str, object]:
    compiled: list[str] = []
    knobs.compilation.listener = lambda **of: compiled.append(of["src"].name)
    options = {"max_num_seqs": MAX_NUM_SEQS, "max_model_len": MAX_MODEL_LEN, "max_num_batched_tokens": BUDGET}
    with compiling_for(Device(90, 132)) as launched:
        runner = start(model, dtype="bfloat16", block_size=BLOCK, **options)._runner
        assert isinstance(runner, GPURunner)
        num_groups = len(runner._model.config.cache_layout.groups)
        runner.compile_kernels()
        ahead = compiled.copy()
        assert runner._graphs.num_captured == 0
        choose = random.Random(7)  # noqa: S311 (not for security)
        requests = [made(choose, str(index)) for index in range(MAX_NUM_SEQS)]
        before = len(launched)
        with compiling_ahead():
            runner.launch(step(choose, requests, num_groups))
        launched_ahead = len(launched) - before
        for _ in range(150):
            runner.launch(step(choose, requests, num_groups))
    return {"ahead": ahead, "launched_ahead": launched_ahead, "later": compiled[len(ahead) :]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(main(Path(sys.argv[1]))))
