"""What the scheduler promises of every step, whatever arrives."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from serving_image.engine.kv_cache import BlockPool
from serving_image.engine.protocol import SamplingParams
from serving_image.engine.request import Request
from serving_image.engine.scheduler import ScheduledRequest, Scheduler

BLOCK = 4


def _request(name: str, prompt: int, output: int) -> Request:
    return Request(
        request_id=name,
        tokens=[0] * prompt,
        num_prompt_tokens=prompt,
        sampling=SamplingParams(max_tokens=output),
        seed=0,
        max_length=prompt + output,
    )


def _scheduler(num_blocks: int = 100, max_num_seqs: int = 8, budget: int = 16) -> tuple[Scheduler, BlockPool]:
    pool = BlockPool(num_blocks, BLOCK)
    return Scheduler(pool, max_num_seqs, budget), pool


def _run(scheduler: Scheduler, scheduled: list[ScheduledRequest]) -> None:
    """What the engine core does with a step: advance, append a token where one was sampled, drop what is finished."""
    sampling = [item.request for item in scheduled if item.samples]
    scheduler.advance(scheduled)
    for request in sampling:
        request.tokens.append(0)
    scheduler.remove([request for request in sampling if request.finish_reason])


def _plan(scheduled: list[ScheduledRequest]) -> dict[str, int]:
    return {item.request.request_id: item.num_tokens for item in scheduled}


def test_a_long_prompt_runs_in_chunks_and_decoding_is_never_held_up() -> None:
    scheduler, _ = _scheduler(budget=16)
    scheduler.add(_request("early", 3, 9))
    scheduler.add(_request("long", 40, 2))
    scheduler.add(_request("late", 5, 2))
    plans = []
    for _ in range(5):
        scheduled = scheduler.schedule()
        plans.append(_plan(scheduled))
        _run(scheduler, scheduled)
    assert plans[:3] == [{"early": 3, "long": 13}, {"early": 1, "long": 15}, {"early": 1, "long": 12, "late": 3}]
    assert plans[3:] == [{"early": 1, "long": 1, "late": 2}, {"early": 1, "late": 1}]


def test_the_newest_request_gives_way_when_blocks_run_out_and_comes_back_first() -> None:
    scheduler, pool = _scheduler(num_blocks=4)
    old, new, waiting = _request("old", 8, 8), _request("new", 8, 8), _request("waiting", 1, 1)
    for request in (old, new, waiting):
        scheduler.add(request)
    _run(scheduler, scheduler.schedule())
    scheduled = scheduler.schedule()
    assert _plan(scheduled) == {"old": 1}
    assert scheduler.num_preemptions == 1
    assert (new.num_computed_tokens, new.num_tokens) == (0, 9)
    assert [request.request_id for request in scheduler] == ["old", "new", "waiting"]
    _run(scheduler, scheduled)
    while pool.num_free < 3:
        assert _plan(scheduler.schedule()) == {"old": 1}
        _run(scheduler, [ScheduledRequest(old, old.num_computed_tokens, 1)])
    assert _plan(scheduler.schedule()) == {"new": 9, "waiting": 1}


def test_only_max_num_seqs_run_at_once() -> None:
    scheduler, _ = _scheduler(max_num_seqs=2)
    for index in range(3):
        scheduler.add(_request(str(index), 1, 3))
    assert _plan(scheduler.schedule()) == {"0": 1, "1": 1}
    assert (scheduler.num_running, scheduler.num_waiting) == (2, 1)


@settings(deadline=None)
@given(
    num_blocks=st.integers(6, 30),
    max_num_seqs=st.integers(1, 5),
    budget=st.integers(1, 24),
    arrivals=st.lists(st.tuples(st.integers(0, 6), st.integers(1, 14), st.integers(1, 10)), min_size=1, max_size=12),
)
def test_every_request_finishes_within_the_limits(
    num_blocks: int, max_num_seqs: int, budget: int, arrivals: list[tuple[int, int, int]]
) -> None:
    """Arrivals are (steps before it, prompt, output); the largest, 24 tokens, just fits the smallest pool."""
    scheduler, pool = _scheduler(num_blocks, max_num_seqs, budget)
    pending = [(delay, _request(str(i), prompt, output)) for i, (delay, prompt, output) in enumerate(arrivals)]
    requests = [request for _, request in pending]
    for _ in range(5000):
        while pending and pending[0][0] <= 0:
            scheduler.add(pending.pop(0)[1])
        if pending:
            pending[0] = (pending[0][0] - 1, pending[0][1])
        elif not list(scheduler):
            break
        scheduled = scheduler.schedule()
        assert bool(scheduled) == bool(list(scheduler))
        assert sum(item.num_tokens for item in scheduled) <= budget
        assert scheduler.num_running <= max_num_seqs
        assert len({item.request.request_id for item in scheduled}) == len(scheduled)
        for request, start, num_tokens in scheduled:
            assert num_tokens > 0
            assert start == request.num_computed_tokens
            assert len(request.blocks.blocks) * BLOCK >= start + num_tokens
        held = [block for request in requests for block in request.blocks.blocks]
        assert len(held) == len(set(held)) == pool.num_blocks - pool.num_free
        _run(scheduler, scheduled)
    assert all(request.num_tokens == request.max_length for request in requests)
    assert pool.num_free == pool.num_blocks
