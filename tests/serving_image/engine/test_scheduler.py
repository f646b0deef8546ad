"""What the scheduler promises of every step, whatever arrives."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving_image.engine.block_demand import BlockDemand
from serving_image.engine.block_pool import BlockPool
from serving_image.engine.block_table import BlockSpan
from serving_image.engine.request import Request
from serving_image.engine.scheduler import Scheduler
from serving_image.engine.step import ScheduledRequest
from tests.serving_image.engine.scripted_runner import BLOCK, Windows, make_request


class Simulation:
    """A scheduler whose steps are read back one step late, as the engine core does it."""

    def __init__(
        self, num_blocks: int = 10_000, max_num_seqs: int = 8, budget: int = 16, windows: Windows = (None,)
    ) -> None:
        self.pool = BlockPool(num_blocks, BlockDemand(BLOCK, windows, budget))
        self.scheduler = Scheduler(self.pool, max_num_seqs, budget)
        self.now = 0.0
        self.queue_seconds: list[float] = []
        self.ended: set[Request] = set()
        self._unread: list[list[ScheduledRequest]] = []

    def add(self, *requests: Request) -> None:
        for request in requests:
            self.scheduler.add(request)

    def step(self) -> list[ScheduledRequest]:
        """Schedule a step, then read the one before."""
        schedule = self.scheduler.schedule(self.now)
        self.queue_seconds += schedule.queue_seconds
        self._unread.append(schedule.items)
        if len(self._unread) == 2 or not schedule.items:
            self._read(self._unread.pop(0))
        return schedule.items

    def plan(self) -> dict[str, int]:
        """The next step's tokens by request."""
        return {item.request.request_id: item.num_tokens for item in self.step()}

    def run_until_sampled(self, request: Request, background: Iterable[Request] = ()) -> int:
        """Steps until one yields the request's first token; each is preceded by an arrival from ``background``."""
        arrivals = iter(background)
        for step in range(1, 1000):
            self.add(*(arrival for arrival in [next(arrivals, None)] if arrival is not None))
            if any(item.request is request and item.samples for item in self.step()):
                return step
        raise AssertionError("never")

    def _read(self, items: list[ScheduledRequest]) -> None:
        ended = []
        for item in items:
            request = item.request
            if request in self.ended:
                continue
            self.pool.register(request.blocks, request.tokens, item.start + item.num_tokens)
            if item.samples:
                request.tokens.append(len(request.tokens) % 7)
                request.num_pending -= 1
                if request.finish_reason:
                    ended.append(request)
        self.ended |= set(ended)
        self.scheduler.remove(ended)


def test_decoding_comes_first_and_a_long_prompt_runs_in_chunks() -> None:
    simulation = Simulation(budget=16)
    simulation.add(make_request("early", 3, 9), make_request("long", [9] * 40, 2))
    assert simulation.plan() == {"early": 3, "long": 13}
    assert simulation.plan() == {"early": 1, "long": 15}
    assert simulation.plan() == {"early": 1, "long": 12}
    assert simulation.plan() == {"early": 1, "long": 1}
    assert simulation.plan() == {"early": 1}  # both of the long request's tokens are there or pending


def test_the_blocks_of_a_step_are_those_of_its_tokens() -> None:
    simulation = Simulation(budget=10)
    request = make_request("r", 12, 3)
    simulation.add(request)
    first, second, third = simulation.step()[0], simulation.step()[0], simulation.step()[0]
    assert [(item.start, item.num_tokens, item.samples) for item in (first, second, third)] == [
        (0, 10, False),
        (10, 2, True),
        (12, 1, True),
    ]
    assert [len(item.blocks[0].blocks) for item in (first, second, third)] == [3, 3, 4]
    assert third.blocks == (BlockSpan(0, tuple(request.blocks.groups[0].blocks)),)


@pytest.mark.parametrize("short", [1, 64, 512, 1024])
@pytest.mark.parametrize("long_prompts", [1, 5])
def test_a_short_request_behind_long_prefills_samples_within_two_steps(short: int, long_prompts: int) -> None:
    simulation = Simulation(budget=1024)
    for index in range(long_prompts):
        simulation.add(make_request(f"long{index}", [index] * 4000, 10))
    simulation.step()
    request = make_request("short", [9] * short, 10)
    simulation.add(request)
    assert simulation.run_until_sampled(request) <= 2


def test_many_short_requests_behind_a_long_prefill_share_a_step() -> None:
    simulation = Simulation(budget=1024, max_num_seqs=32)
    simulation.add(make_request("long", [9] * 4000, 10))
    simulation.step()
    simulation.add(*(make_request(str(index), [index] * 32, 10) for index in range(16)))
    plan = simulation.plan()
    assert plan == {"long": 512} | {str(index): 32 for index in range(16)}


def test_a_long_prompt_goes_on_under_a_constant_stream_of_short_ones() -> None:
    simulation = Simulation(budget=1024, max_num_seqs=32)
    long = make_request("long", [9] * 4000, 10)
    simulation.add(long)
    stream = (make_request(str(index), [index] * 900, 1) for index in range(1000))
    # It is sure of half of each step.
    assert simulation.run_until_sampled(long, stream) <= 8


def test_prompts_of_similar_length_are_not_interleaved() -> None:
    simulation = Simulation(budget=100)
    simulation.add(*(make_request(str(index), [index] * (250 - index), 1) for index in range(3)))
    sampled = [[item.request.request_id for item in simulation.step() if item.samples] for _ in range(8)]
    assert sampled == [[], [], ["0"], [], ["1"], [], [], ["2"]]


def test_better_priorities_go_first_and_take_the_whole_budget() -> None:
    simulation = Simulation(budget=16)
    simulation.add(make_request("late", 10, 2, priority=1), make_request("urgent", [7] * 20, 2, priority=-1))
    assert simulation.plan() == {"urgent": 16}
    assert simulation.plan() == {"urgent": 4, "late": 10}


def test_a_request_of_better_priority_takes_the_slot_of_the_worst_and_newest() -> None:
    simulation = Simulation(max_num_seqs=3, budget=64)
    low = [make_request(f"low{index}", [index] * 5, 9, priority=5) for index in range(2)]
    simulation.add(*low, make_request("high", [7] * 5, 9, priority=1))
    simulation.step()
    simulation.add(make_request("equal", [8] * 5, 9, priority=5), make_request("urgent", [9] * 5, 9, priority=3))
    assert simulation.plan() == {"high": 1, "low0": 1, "urgent": 5}
    assert (simulation.scheduler.num_running, simulation.scheduler.num_waiting) == (3, 2)
    assert simulation.scheduler.num_preemptions == 1
    # Equals wait: nobody is preempted for a request of the same priority.
    assert simulation.plan() == {"high": 1, "low0": 1, "urgent": 1}
    assert simulation.scheduler.num_preemptions == 1


def test_a_request_of_better_priority_takes_blocks_but_never_in_vain() -> None:
    simulation = Simulation(num_blocks=10, max_num_seqs=8, budget=64)
    simulation.add(make_request("important", [1] * 11, 2, priority=0), make_request("low", [2] * 11, 4, priority=9))
    simulation.step()
    # 7 blocks: not even the low one's 3 would make room beside the important one.
    simulation.add(make_request("large", [3] * 28, 1, priority=5))
    assert simulation.plan() == {"important": 1, "low": 1}
    assert simulation.scheduler.num_preemptions == 0
    simulation.add(make_request("urgent", [4] * 20, 1, priority=1))
    assert "urgent" in simulation.plan()
    assert simulation.scheduler.num_preemptions == 1


def test_the_newest_gives_way_when_blocks_run_out_and_comes_back_to_its_old_place() -> None:
    simulation = Simulation(num_blocks=7)
    old, new = make_request("old", [1] * 8, 9), make_request("new", [2] * 8, 9)
    simulation.add(old, new)
    assert simulation.plan() == {"old": 8, "new": 8}
    while simulation.scheduler.num_preemptions == 0:
        plan = simulation.plan()
    assert plan == {"old": 1}
    assert (new.blocks.groups, new.num_computed_tokens) == ((), 0)
    simulation.add(make_request("newest", [3] * 2, 1))
    for _ in range(20):
        simulation.step()
    assert len(old.tokens) == len(new.tokens) == 17
    assert simulation.scheduler.num_preemptions == 1


def test_a_preempted_request_finds_its_own_blocks_again() -> None:
    simulation = Simulation(num_blocks=100, max_num_seqs=1, budget=64)
    low = make_request("low", [1] * 20, 9, priority=1)
    simulation.add(low)
    for _ in range(4):
        simulation.step()
    simulation.add(make_request("urgent", [2] * 5, 1))
    assert simulation.plan() == {"urgent": 5}
    resumed = next(item for _ in range(9) for item in simulation.step() if item.request is low)
    assert resumed.start == 20
    assert resumed.samples
    # That it met itself in the cache is not a hit that anyone asked for.
    assert low.num_cached_tokens == 0
    assert simulation.scheduler.prefix_cache_hits == 0


def test_a_request_keeps_to_what_it_shares_and_recomputes_the_last_block() -> None:
    simulation = Simulation(budget=64)
    first = make_request("first", list(range(24)), 1)
    simulation.add(first)
    simulation.run_until_sampled(first)
    simulation.step()
    same, longer = make_request("same", list(range(24)), 1), make_request("longer", list(range(30)), 1)
    salted = make_request("salted", list(range(24)), 1, cache_salt="x")
    simulation.add(same, longer, salted)
    starts = {item.request.request_id: (item.start, item.num_tokens) for item in simulation.step()}
    assert starts == {"same": (20, 4), "longer": (24, 6), "salted": (0, 24)}
    assert (same.num_cached_tokens, longer.num_cached_tokens, salted.num_cached_tokens) == (20, 24, 0)
    assert simulation.scheduler.prefix_cache_queries == 24 + 24 + 30 + 24
    assert simulation.scheduler.prefix_cache_hits == 44


def test_nobody_overtakes_a_large_request_that_waits_for_blocks() -> None:
    simulation = Simulation(num_blocks=12, budget=64)
    simulation.add(make_request("running", [1] * 20, 5))
    simulation.step()
    large = make_request("large", [2] * 32, 1)
    simulation.add(large, make_request("small", [3] * 2, 1))
    assert simulation.plan() == {"running": 1}
    assert simulation.run_until_sampled(large) <= 6


def test_only_max_num_seqs_run_at_once_and_waits_are_reported_once() -> None:
    simulation = Simulation(max_num_seqs=2)
    simulation.add(*(make_request(str(index), [index], 3, arrived_at=0.5) for index in range(3)))
    simulation.now = 2.0
    assert simulation.plan() == {"0": 1, "1": 1}
    assert (simulation.scheduler.num_running, simulation.scheduler.num_waiting) == (2, 1)
    assert simulation.queue_seconds == [1.5, 1.5]
    simulation.now = 4.0
    for _ in range(5):
        simulation.step()
    assert simulation.queue_seconds == [1.5, 1.5, 3.5]


def test_removing_requests_frees_their_blocks_wherever_they_are() -> None:
    simulation = Simulation(max_num_seqs=2, budget=4)
    requests = [make_request(str(index), [index] * 9, 3) for index in range(4)]
    simulation.add(*requests)
    simulation.step()
    simulation.scheduler.remove(requests)
    assert (simulation.scheduler.num_running, simulation.scheduler.num_waiting) == (0, 0)
    assert simulation.pool.num_free == simulation.pool.num_blocks


@settings(deadline=None, max_examples=150)
@given(
    spare=st.integers(0, 24),
    windows=st.sampled_from([(None,), (None,), (6,), (None, 2, 7)]),
    max_num_seqs=st.integers(1, 5),
    budget=st.integers(1, 24),
    arrivals=st.lists(
        st.tuples(st.integers(0, 6), st.integers(1, 14), st.integers(1, 10), st.integers(0, 2)),
        min_size=1,
        max_size=12,
    ),
)
def test_every_request_finishes_within_the_limits(
    spare: int, windows: Windows, max_num_seqs: int, budget: int, arrivals: list[tuple[int, int, int, int]]
) -> None:
    """Arrivals are (steps before it, prompt, output, priority); the largest, 24 tokens, fits the smallest pool."""
    num_blocks = BlockDemand(BLOCK, windows, budget).most(24) + spare
    simulation = Simulation(num_blocks, max_num_seqs, budget, windows)
    scheduler, pool = simulation.scheduler, simulation.pool
    to_come = [
        (delay, make_request(str(index), [index] * prompt, output, priority=priority))
        for index, (delay, prompt, output, priority) in enumerate(arrivals)
    ]
    requests = [request for _, request in to_come]
    idle = 0
    while to_come or scheduler.num_running or scheduler.num_waiting:
        while to_come and to_come[0][0] <= 0:
            scheduler.add(to_come.pop(0)[1])
        if to_come:
            to_come[0] = (to_come[0][0] - 1, to_come[0][1])
        items = simulation.step()
        idle = 0 if items else idle + 1
        assert idle <= 3 + 7 * bool(to_come), "nothing runs though requests are live"
        assert sum(item.num_tokens for item in items) <= budget
        assert scheduler.num_running <= max_num_seqs
        assert len({item.request for item in items}) == len(items)
        assert all(item.num_tokens > 0 and len(item.request.tokens) <= item.request.max_length for item in items)
        assert all((s.first + len(s.blocks)) * BLOCK >= i.start + i.num_tokens for i in items for s in i.blocks)
        assert pool.num_free + pool.num_held == pool.num_blocks
    assert all(len(request.tokens) == request.max_length for request in requests)
    assert pool.num_free == pool.num_blocks
    assert len(simulation.queue_seconds) == len(requests)
