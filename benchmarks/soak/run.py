"""The course of a soak: warm up, load, come to rest, compare."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from benchmarks.soak.client import Clients, Tally
from benchmarks.soak.plans import MAX_MODEL_LEN, Plan, plans
from benchmarks.soak.report import Soak
from benchmarks.soak.server import SoakServer, soak_server

MODEL = Path(__file__).resolve().parents[2] / "starter" / "model"
#: 38 blocks of 32 tokens for the starter model in float32: ten of the 48 requests fit, and they grow.
KV_CACHE_BYTES = 2_500_000
OPTIONS = [
    *("--dtype", "float32", "--max-model-len", str(MAX_MODEL_LEN), "--block-size", "32"),
    *("--kv-cache-memory", str(KV_CACHE_BYTES), "--max-num-seqs", "32", "--max-num-batched-tokens", "512"),
]
NUM_REPEATED = 64


def soak(
    num_requests: int,
    *,
    warm_up: int,
    concurrency: int = 48,
    seed: int = 0,
    most_growth: float = 0.02,
    options: Sequence[str] = (),
) -> Soak:
    """Run one and return what it has shown.

    :param warm_up: so many of ``num_requests`` come before memory is looked at for the first time.
    :param most_growth: of memory since then, as a share.
    :param options: more options of the server.
    """
    tally = Tally()
    with (
        tempfile.TemporaryDirectory() as folder,
        soak_server(MODEL, Path(folder) / "log", [*OPTIONS, *options]) as server,
    ):
        clients = Clients(server.url, tally)
        # Connections, thread pools and lazily imported modules are not there before the first request.
        asyncio.run(clients.run(islice(plans(seed + 1), 20), concurrency))
        server.wait_idle()
        before = server.state()
        stream, began = plans(seed), time.monotonic()
        asyncio.run(clients.run(islice(stream, warm_up), concurrency))
        server.wait_idle()
        warm = server.state()
        asyncio.run(clients.run(islice(stream, num_requests - warm_up), concurrency))
        seconds = time.monotonic() - began
        server.wait_idle()
        after, metrics = server.state(), server.metrics()
        repeated = tally.answers[:: max(len(tally.answers) // NUM_REPEATED, 1)][:NUM_REPEATED]
        mismatches = _mismatches(server, repeated)
        exit_status = server.terminate()
        log = server.log
    return Soak(
        num_requests=num_requests,
        num_warm_up=warm_up,
        concurrency=concurrency,
        seconds=seconds,
        tally=tally,
        before=before,
        warm=warm,
        after=after,
        metrics=metrics,
        log=log,
        exit_status=exit_status,
        num_repeated=len(repeated),
        mismatches=mismatches,
        most_growth=most_growth,
    )


def _mismatches(server: SoakServer, answers: list[tuple[Plan, str]]) -> int:
    """Answers that are different when nothing else runs and nothing is cached."""
    alone = Tally()
    salted = [
        replace(plan, body=plan.body | {"cache_salt": f"alone-{number}"}) for number, (plan, _) in enumerate(answers)
    ]
    asyncio.run(Clients(server.url, alone).run(salted, concurrency=1))
    return sum(again != text for (_, text), (_, again) in zip(answers, alone.answers, strict=True))
