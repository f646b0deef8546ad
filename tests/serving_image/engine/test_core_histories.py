"""Whatever requests come and go, each gets what it gets alone, and blocks stay within their bounds."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from serving_image.engine.block_demand import BlockDemand
from serving_image.engine.protocol import RequestOutput
from tests.serving_image.engine.scripted_runner import (
    BLOCK,
    ScriptedEngine,
    Windows,
    ask,
    expected_tokens,
    random_prompt,
)
from tests.serving_image.generation import run_to_end, tokens_by_request


def assert_bounded(engine: ScriptedEngine, windows: Windows, budget: int) -> None:
    """No request holds more of a windowed group than its window and a step reach."""
    for request in engine.core._live.values():
        for window, held in zip(windows, request.blocks.groups, strict=False):
            assert window is None or len(held.blocks) <= -(-(window - 1 + budget) // BLOCK) + 1


_EVENTS = st.lists(
    st.one_of(
        st.tuples(
            st.just("add"),
            st.integers(0, 5),  # which beginning it shares with others
            st.integers(1, 22),  # prompt tokens
            st.integers(1, 14),  # answer tokens
            st.sampled_from([-1, 0, 0, 0, 3]),
            st.sampled_from([None, None, "salt"]),
            st.booleans(),  # whether a token of its answer stops it
        ),
        st.tuples(st.just("abort"), st.integers(0, 60)),
        st.tuples(st.just("step"), st.integers(1, 4)),
    ),
    min_size=5,
    max_size=60,
)


@settings(deadline=None, max_examples=300)
@given(
    limits=st.tuples(st.integers(0, 15), st.integers(1, 6), st.integers(1, 30)),
    windows=st.sampled_from([(None,), (None,), (5,), (1,), (None, 3), (None, 9, 9), (2, 10, None)]),
    quick=st.booleans(),
    caching=st.booleans(),
    events=_EVENTS,
)
def test_any_history_gives_each_request_what_it_gets_alone(
    limits: tuple[int, int, int], windows: Windows, quick: bool, caching: bool, events: list[tuple[object, ...]]
) -> None:
    """The largest request, 22 + 14 tokens of which the last is never computed, fits the smallest pool."""
    spare, max_num_seqs, budget = limits
    num_blocks = BlockDemand(BLOCK, windows, budget).most(35) + spare
    engine = ScriptedEngine(
        num_blocks=num_blocks,
        max_num_seqs=max_num_seqs,
        budget=budget,
        enable_prefix_caching=caching,
        windows=windows,
    )
    engine.runner.quick = quick
    expected: dict[str, list[int]] = {}
    outputs: list[RequestOutput] = []
    aborted: set[str] = set()
    for event in events:
        match event:
            case ("add", int(family), int(length), int(answer), int(priority), salt, stops):
                prompt = random_prompt(22, family)[:length]
                tokens = expected_tokens(prompt, answer, windows=windows)
                stop = frozenset({tokens[-1] if answer % 2 else tokens[answer // 2]} if stops else ())
                name = str(len(expected))
                expected[name] = expected_tokens(prompt, answer, stop, windows)
                request = ask(name, prompt, answer, priority=priority, cache_salt=salt, stop_token_ids=stop)  # type: ignore[arg-type]
                assert engine.core.add(request) is None
            case ("abort", int(index)):
                aborted |= {output.request_id for output in engine.core.abort([str(index)])}
            case (_, int(steps)):
                for _ in range(steps):
                    outputs += engine.core.step().outputs
                    assert engine.core.stats().num_running <= max_num_seqs
                    assert engine.pool.num_free + engine.pool.num_held == num_blocks
                    assert_bounded(engine, windows, budget)
    outputs += run_to_end(engine.core)[0]
    engine.check_idle()
    assert all(sum(item.num_tokens for item in step) <= budget for step in engine.runner.steps)
    tokens_of = tokens_by_request(outputs)
    ends = [output.request_id for output in outputs if output.finish_reason is not None]
    assert sorted(ends) == sorted(set(expected) - aborted)
    for name, whole in expected.items():
        got = tokens_of.get(name, [])
        assert got == (whole[: len(got)] if name in aborted else whole)
