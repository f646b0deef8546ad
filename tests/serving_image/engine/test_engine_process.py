"""The engine process over real sockets: streams, aborts, refusals, signals, and its end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from serving_image.engine.protocol import AbortRequests, Drain, EngineFailed, EngineReady
from tests.serving_image.checkpoints import edit_config, random_prompt, transformers_greedy, write_checkpoint
from tests.serving_image.engine.engine_process import EngineUnderTest, engine_process
from tests.serving_image.generation import greedy_request


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model"), max_position_embeddings=512)


@pytest.fixture(scope="module")
def ready_engine(model: Path) -> Iterator[tuple[EngineUnderTest, EngineReady]]:
    with engine_process(model, max_num_batched_tokens=64, max_num_seqs=32) as engine:
        ready = engine.receive()
        assert isinstance(ready, EngineReady)
        yield engine, ready


@pytest.fixture
def engine(ready_engine: tuple[EngineUnderTest, EngineReady]) -> EngineUnderTest:
    return ready_engine[0]


def test_ready_says_what_is_served_and_where_the_time_went(
    ready_engine: tuple[EngineUnderTest, EngineReady],
) -> None:
    _, ready = ready_engine
    assert (ready.device, ready.dtype, ready.vocab_size, ready.max_model_len) == ("cpu", "float32", 256, 512)
    assert ready.num_blocks * ready.block_size >= ready.max_model_len
    assert [phase.name for phase in ready.boot] == [
        "interpreter",
        "import torch",
        "configuration",
        "weights",
        "key/value cache",
    ]


def test_32_concurrent_requests_stream_what_transformers_generates(engine: EngineUnderTest, model: Path) -> None:
    prompts = {str(i): random_prompt(2 + 5 * i % 90, seed=100 + i) for i in range(32)}
    lengths = {str(i): 4 + 3 * i % 11 for i in range(32)}
    for name, prompt in prompts.items():
        engine.send(greedy_request(name, prompt, lengths[name]))
    outputs = engine.collect(list(prompts))
    for name, prompt in prompts.items():
        stream = [token for output in outputs[name] for token in output.token_ids]
        assert stream == transformers_greedy(model, prompt, lengths[name])
        assert [output.finish_reason for output in outputs[name][-2:]] == [None, "length"]
        assert all(len(output.token_ids) == 1 for output in outputs[name])


def test_an_abort_frees_the_blocks_of_a_running_request(engine: EngineUnderTest) -> None:
    engine.send(greedy_request("endless", [1, 2, 3], 500))
    while not engine.receive_step().outputs:
        pass
    engine.send(AbortRequests(["endless"]))
    ended = False
    while True:
        step = engine.receive_step()
        ended = ended or any(output.finish_reason == "abort" for output in step.outputs)
        if step.stats.num_running == 0:
            break
    assert ended
    assert step.stats.num_free_blocks == step.stats.num_total_blocks


def test_a_prompt_is_found_again_but_not_by_another_tenant(engine: EngineUnderTest, model: Path) -> None:
    prompt = random_prompt(70, seed=7)
    expected = transformers_greedy(model, prompt, 4)
    first = greedy_request("first", prompt, 4)
    cached = []
    for request in (first, msgspec.structs.replace(first, request_id="stranger", cache_salt="other"), first):
        engine.send(request)
        outputs = engine.collect([request.request_id])[request.request_id]
        assert [token for output in outputs for token in output.token_ids] == expected
        cached.append(outputs[0].num_cached_tokens)
    assert cached == [0, 0, 64]


def test_bad_requests_and_garbage_leave_others_alone(engine: EngineUnderTest, model: Path) -> None:
    engine.send_raw(b"\xff\x00garbage")
    engine.send(greedy_request("good", [1, 2, 3], 6))
    engine.send(greedy_request("too long", [1] * 600, 6))
    engine.send(greedy_request("not a token", [70000], 6))
    outputs = engine.collect(["good", "too long", "not a token"])
    assert [token for output in outputs["good"] for token in output.token_ids] == transformers_greedy(
        model, [1, 2, 3], 6
    )
    assert [output.finish_reason for output in outputs["too long"]] == ["error"]
    assert "512" in (outputs["too long"][0].error or "")
    assert "0 … 255" in (outputs["not a token"][0].error or "")


def test_an_idle_engine_keeps_a_heartbeat_through_signals(engine: EngineUnderTest) -> None:
    engine.process.send_signal(signal.SIGTERM)
    engine.process.send_signal(signal.SIGINT)
    for _ in range(3):
        step = engine.receive_step()
        assert step.outputs == []
        assert step.stats.num_free_blocks == step.stats.num_total_blocks
    assert engine.process.poll() is None


def test_a_drain_finishes_what_runs_refuses_what_comes_and_exits_0(model: Path) -> None:
    with engine_process(model) as engine:
        assert isinstance(engine.receive(), EngineReady)
        engine.send(greedy_request("before", [1, 2, 3], 12))
        engine.send(Drain())
        engine.send(greedy_request("after", [1, 2, 3], 12))
        outputs = engine.collect(["before", "after"])
        assert [token for output in outputs["before"] for token in output.token_ids] == transformers_greedy(
            model, [1, 2, 3], 12
        )
        assert "shutting down" in (outputs["after"][0].error or "")
        assert engine.process.wait(timeout=30) == 0


def test_an_engine_that_cannot_start_says_why_and_exits_2(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    edit_config(folder, architectures=["NovelForCausalLM"])
    with engine_process(folder) as engine:
        failed = engine.receive()
        assert isinstance(failed, EngineFailed)
        assert "NovelForCausalLM" in failed.message
        assert "LlamaForCausalLM" in failed.next_step
        _, log = engine.process.communicate(timeout=30)
        assert engine.process.returncode == 2
        assert "Traceback" not in log


def test_the_engine_dies_with_its_parent(model: Path) -> None:
    with engine_process(model, behind_parent=True) as engine:
        assert isinstance(engine.receive(), EngineReady)
        (child,) = psutil.Process(engine.process.pid).children()
        engine.process.kill()
        gone, _ = psutil.wait_procs([child], timeout=20)
        assert gone or child.status() == psutil.STATUS_ZOMBIE


def test_options_that_are_not_options_are_a_failure_not_silence(model: Path) -> None:
    with engine_process(model, options_json='{"model": 3}') as engine:
        failed = engine.receive()
        assert isinstance(failed, EngineFailed)
        assert engine.process.wait(timeout=30) == 2
