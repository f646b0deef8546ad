"""An engine process whose model repeats its prompt for ever: what a test sends is what comes back, token by token.

It speaks the real protocol over the real sockets, so a test of the server can choose every token. Settings come from
``echo`` in the model's config.json: ``max_model_len``, ``max_num_seqs``, ``load_seconds``, ``step_seconds``,
``refuse`` (message, next step), ``die_after_tokens``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import msgspec
import zmq

from serving_image.engine.process import die_with_parent
from serving_image.engine.protocol import (
    AbortRequests,
    AddRequest,
    BootPhase,
    Drain,
    EngineFailed,
    EngineReady,
    EngineStats,
    RequestOutput,
    StepOutput,
    decode_input,
    encode,
)
from serving_image.options import EngineOptions

TOTAL_BLOCKS = 1000


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("--options", "--input", "--output", "--parent"):
        parser.add_argument(name, required=True)
    arguments = parser.parse_args()
    options = msgspec.json.decode(arguments.options, type=EngineOptions)
    die_with_parent(int(arguments.parent))
    config = json.loads((Path(options.model) / "config.json").read_text())
    context = zmq.Context()
    context.linger = 1000  # an end must not wait for a server that is gone
    inbox, outbox = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    inbox.connect(arguments.input)
    outbox.connect(arguments.output)
    return Echo(inbox, outbox, options, config["vocab_size"], config.get("echo", {})).run()


class Echo:
    def __init__(self, inbox, outbox, options, vocab_size, settings):
        self.inbox, self.outbox, self.settings = inbox, outbox, settings
        self.max_model_len = options.max_model_len or settings.get("max_model_len", 1024)
        self.vocab_size = vocab_size
        self.live: dict[str, tuple[AddRequest, int]] = {}
        self.steps = self.tokens = 0
        self.draining = False

    def run(self) -> int:
        if "refuse" in self.settings:
            self.outbox.send(encode(EngineFailed(*self.settings["refuse"])))
            return 2
        time.sleep(self.settings.get("load_seconds", 0))
        print("loaded", file=sys.stderr, flush=True)
        self.outbox.send(encode(self.ready()))
        while True:
            while self.inbox.poll(0 if self.live else 200):
                self.take(decode_input(self.inbox.recv()))
                if not self.inbox.poll(0):
                    break
            if self.draining and not self.live:
                return 0
            self.step()
            time.sleep(self.settings.get("step_seconds", 0) if self.live else 0)

    def take(self, message) -> None:
        if isinstance(message, AddRequest):
            self.live[message.request_id] = (message, 0)
        elif isinstance(message, AbortRequests):
            for request_id in message.request_ids:
                self.live.pop(request_id, None)
        elif isinstance(message, Drain):
            self.draining = True

    def step(self) -> None:
        outputs = [self.advance(request, done) for request, done in list(self.live.values())]
        self.steps += 1
        self.outbox.send(encode(StepOutput(outputs, self.stats())))
        if self.tokens >= self.settings.get("die_after_tokens", 1 << 60):
            self.outbox.close(linger=1000)
            os._exit(7)

    def advance(self, request: AddRequest, done: int) -> RequestOutput:
        prompt, sampling = request.prompt_token_ids, request.sampling
        token_id, done, reason = prompt[done % len(prompt)], done + 1, None
        if token_id in sampling.stop_token_ids and done > sampling.min_tokens:
            reason = "stop"
        elif done == sampling.max_tokens:
            reason = "length"
        if reason:
            del self.live[request.request_id]
        else:
            self.live[request.request_id] = (request, done)
        self.tokens += 1
        return RequestOutput(request.request_id, [token_id], finish_reason=reason)

    def ready(self) -> EngineReady:
        return EngineReady(
            device="cpu",
            dtype="float32",
            parameters=0,
            vocab_size=self.vocab_size,
            max_model_len=self.max_model_len,
            max_num_seqs=self.settings.get("max_num_seqs", 64),
            block_size=16,
            num_blocks=TOTAL_BLOCKS,
            kv_cache_bytes=0,
            boot=[BootPhase("all", 0.0)],
        )

    def stats(self) -> EngineStats:
        return EngineStats(
            step=self.steps,
            num_running=len(self.live),
            num_waiting=0,
            num_free_blocks=TOTAL_BLOCKS - len(self.live),
            num_total_blocks=TOTAL_BLOCKS,
            num_preemptions=0,
            batch_tokens=len(self.live),
            step_seconds=0.0,
        )


if __name__ == "__main__":
    raise SystemExit(main())
