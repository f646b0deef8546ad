"""The cases: what each sends and what it measures."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.direct import DirectEngine, busy_neighbour, idle_share, rate
from engine.traces import Trace, decode_rate, makespan, output_rate, time_to_first_token
from engine.workload import Job, Prompts

Figures = dict[str, float]
#: Seconds that one job list may take.
LIMIT = 300.0
PREFIX, SUFFIX = 1024, 64
#: Requests that decode while another process is busy, and tokens each may have: more than there is time for.
BUSY_REQUESTS = (1, 16)
_ENDLESS = 3000
_DECODE_SECONDS = 2.5
_BATCH = 64
#: The steps' times are those at which their messages arrive here: the window is long beside such delays.
_IDLE_SECONDS = 6.0


class Engine(Protocol):
    """What answers; :class:`engine.servers.Server` or :class:`engine.direct.DirectEngine`."""

    def complete(self, jobs: Sequence[Job], limit: float) -> list[Trace]: ...


@dataclass(frozen=True)
class Case:
    """``key`` in ``measure`` names the round: prompts derive from it."""

    name: str
    title: str
    prefix_caching: bool
    measure: Callable[[Engine, str], Figures]


def burst(engine: Engine, key: str) -> Figures:
    jobs = Prompts(f"burst {key}").burst()
    traces = engine.complete(jobs, LIMIT)
    prompt_tokens = sum(len(job.prompt) for job in jobs)
    seconds = makespan(traces)
    output = output_rate(traces)
    return {"output_tokens_per_s": output, "total_tokens_per_s": output + prompt_tokens / seconds}


def one_request(engine: Engine, key: str) -> Figures:
    traces = engine.complete(Prompts(f"one {key}").jobs(1, 128, 128), LIMIT)
    return {"decode_tokens_per_s": decode_rate(traces), "first_token_s": time_to_first_token(traces[0])}


def long_prompt(engine: Engine, key: str) -> Figures:
    """Three in turn, the median: one is short."""
    jobs = Prompts(f"prompt {key}").jobs(3, 512, 2)
    times = [time_to_first_token(engine.complete([job], LIMIT)[0]) for job in jobs]
    return {"first_token_s": statistics.median(times)}


def shared_prefix(engine: Engine, key: str) -> Figures:
    """Once cold, then three times with other suffixes, the median."""
    prompts = Prompts(f"prefix {key}")
    prefix = prompts.tokens(PREFIX)
    jobs = [Job(prefix + prompts.tokens(SUFFIX), 2) for _ in range(4)]
    cold, *warm = (time_to_first_token(engine.complete([job], LIMIT)[0]) for job in jobs)
    return {"cold_s": cold, "warm_s": statistics.median(warm)}


def at_context(tokens: int, key: str | None = None) -> Callable[[Engine, str], Figures]:
    """16 requests with prompts of this length; ``key`` None draws new ones for each round."""

    def measure(engine: Engine, round_key: str) -> Figures:
        prompts = Prompts(f"context {tokens} {round_key if key is None else key}")
        return {"decode_tokens_per_s": decode_rate(engine.complete(prompts.jobs(16, tokens, 64), LIMIT))}

    return measure


#: Through every engine, over HTTP and directly. Where prefixes are cached, the prompts at context 1,900 are the same
#: in all rounds, so that only the first round spends minutes on computing them; what is measured is decoding.
CASES = (
    Case("burst", "64 requests at once, prompts 32–256, outputs 32–160", False, burst),
    Case("one", "one request, 128 in, 128 out", False, one_request),
    Case("prompt_512", "512-token prompt, one request", False, long_prompt),
    Case("context_200", "16 requests at context 200", False, at_context(200)),
    Case("prefix", "1,024-token shared prefix + 64 new tokens", True, shared_prefix),
    Case("context_1900", "16 requests at context 1,900", True, at_context(1900, key="all rounds")),
)


def idle_at_64(engine: DirectEngine, key: str) -> Figures:
    """How long the device waits for Python between steps, decoding a full batch."""
    jobs = Prompts(f"idle {key}").jobs(_BATCH, 32, _ENDLESS)
    steps = engine.decode_steps(jobs, _IDLE_SECONDS, LIMIT)
    device = statistics.median(step.device_seconds for step in steps)
    return {"idle_share": idle_share(steps), "device_step_s": device, "tokens_per_s": rate(steps)}


def beside_busy(engine: DirectEngine, key: str, cores: Sequence[int]) -> Figures:
    """Decoding rates with a quiet machine and beside a busy loop, free to move or pinned to the last core."""
    figures = {}
    for requests in BUSY_REQUESTS:
        prompts = Prompts(f"busy {requests} {key}")

        def measured(requests: int = requests, prompts: Prompts = prompts) -> float:
            return rate(engine.decode_steps(prompts.jobs(requests, 64, _ENDLESS), _DECODE_SECONDS, LIMIT))

        figures[f"quiet_{requests}"] = quiet = measured()
        for name, core in (("free", None), ("pinned", max(cores))):
            with busy_neighbour(core):
                figures[f"{name}_{requests}"] = measured() / quiet
    return figures
