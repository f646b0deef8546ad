"""What the engine's options and scheduling fields promise, kept by the real engine through HTTP."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from kernels.native import library
from tests.hub.models import tiny_llama
from tests.serving_image.server.llama_reference import LETTERS, Reference
from tests.serving_image.serving import PATIENCE, RunningServer, running_server, started_server, wait_until

PLAIN = ("--served-model-name", "llama", "--threads", "1", "--log-format", "json")
BYTES_PER_BLOCK = {"float32": 16384, "bfloat16": 8192}
"""Of 32 tokens of the tiny Llama."""


def some_ids(length: int, seed: int) -> list[int]:
    """Token ids of the tiny Llama, none of them special."""
    return random.Random(seed).choices(range(5, 384), k=length)  # noqa: S311


def complete(server: RunningServer, prompt: Sequence[int], **fields: Any) -> dict[str, Any]:
    """The body of a completion, greedy unless told otherwise."""
    body = {"prompt": list(prompt), "max_tokens": 8, "temperature": 0, "ignore_eos": True}
    answer = server.post("/v1/completions", body | fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def wait_for(server: RunningServer, running: int, waiting: int) -> None:
    """Until so many sequences run and wait."""
    expected = {"vllm:num_requests_running": running, "vllm:num_requests_waiting": waiting}
    wait_until(lambda: all(server.metric(name) == count for name, count in expected.items()), str(expected))


def order_of_completion(server: RunningServer, prompt_lengths: set[int]) -> list[int]:
    """The lengths of these prompts, none used twice, as the server logged that it had answered them."""

    def answered() -> list[int]:
        records = [json.loads(line) for line in server.lines if line.startswith("{") and line.endswith("}")]
        return [record["prompt_tokens"] for record in records if record.get("prompt_tokens") in prompt_lengths]

    wait_until(lambda: len(answered()) == len(prompt_lengths), f"answers to {prompt_lengths} are logged")
    return answered()


@pytest.fixture(scope="module")
def long_context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("long") / "llama", max_position_embeddings=8192)


@pytest.fixture(scope="module")
def server_of_small_steps(long_context: Path) -> Iterator[RunningServer]:
    with running_server(long_context, *PLAIN, "--dtype", "float32", "--max-num-batched-tokens", "8") as server:
        yield server


@pytest.fixture(scope="module")
def server_of_one_at_a_time(long_context: Path) -> Iterator[RunningServer]:
    options = ("--dtype", "float32", "--max-num-seqs", "1", "--no-enable-prefix-caching")
    with running_server(long_context, *PLAIN, *options) as server:
        yield server


@pytest.fixture(scope="module")
def int8_server(llama_folder: Path) -> Iterator[RunningServer]:
    with running_server(llama_folder, *PLAIN, "--dtype", "float32", "--quantization", "int8-dynamic") as server:
        yield server


@pytest.fixture(scope="module")
def exact(llama_folder: Path, int8_server: RunningServer) -> Reference:
    return Reference(llama_folder, int8_server)


@pytest.fixture(scope="module")
def rounded(llama_folder: Path, int8_server: RunningServer) -> Reference:
    """Its scales are those of whole rows: of a weight's for an output, of a token's inputs."""
    reference = Reference(llama_folder, int8_server)
    for module in reference.model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = to_int8(module.weight.data)
            module.register_forward_pre_hook(lambda _, inputs: (to_int8(inputs[0]),))
    return reference


def to_int8(rows: torch.Tensor) -> torch.Tensor:
    step = rows.abs().amax(dim=-1, keepdim=True) / 127
    return (rows / step).round() * step


class TestInt8:
    """Held to Transformers twice: to the exact model, and to one that rounds all weights and inputs as int8 has it.

    The first error is some 0.04; the second 0.0001, and 0.025 or more if any matrix is off by 5 %.
    """

    def test_scores_of_a_prompt(self, int8_server: RunningServer, exact: Reference, rounded: Reference) -> None:
        prompt = some_ids(400, seed=5)
        answer = complete(int8_server, prompt, max_tokens=1, prompt_logprobs=20)
        entries = answer["choices"][0]["prompt_logprobs"][1:]
        scores = {
            (row, int(id_)): scored["logprob"] for row, entry in enumerate(entries) for id_, scored in entry.items()
        }
        assert len(scores) >= 399 * 20
        assert 0.005 < error(scores, exact.logprobs(prompt)) < 0.06
        assert error(scores, rounded.logprobs(prompt)) < 0.01

    def test_a_greedy_answer(self, int8_server: RunningServer, rounded: Reference) -> None:
        letters = rounded.letters
        choice = complete(
            int8_server, rounded.prompt, max_tokens=60, logprobs=0, allowed_token_ids=list(letters.values())
        )["choices"][0]
        answer = [letters[letter] for letter in choice["text"]]
        assert len(answer) == 60
        rows = rounded.logprobs(rounded.prompt + answer)[len(rounded.prompt) - 1 : -1]
        values = choice["logprobs"]["token_logprobs"]
        assert error(dict(zip(enumerate(answer), values, strict=True)), rows) < 0.01
        best = rows[:, [letters[letter] for letter in LETTERS]].amax(dim=1)
        assert values == pytest.approx(best.tolist(), abs=0.05)


def error(scores: dict[tuple[int, int], float], truth: torch.Tensor) -> float:
    """The root of the mean square of what scores by row and token are off."""
    rows, ids = zip(*scores, strict=True)
    return float((torch.tensor(list(scores.values())) - truth[list(rows), list(ids)]).square().mean().sqrt())


class TestBatchInvariance:
    @pytest.mark.skipif(not library.processor_suffices(), reason="needs a processor with AVX512-BF16")
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_answers_are_the_same_bit_by_bit_alone_and_amid_others(self, llama_folder: Path, dtype: str) -> None:
        """Amid others prompts are cut elsewhere, and blocks run out, so that some start over."""
        memory = str(24 * BYTES_PER_BLOCK[dtype])
        options = ("--dtype", dtype, "--batch-invariant", "--max-num-batched-tokens", "24", "--kv-cache-memory", memory)
        choose = random.Random(1)  # noqa: S311
        requests = [
            {
                "prompt": some_ids(choose.randint(1, 200), seed),
                "max_tokens": choose.randint(60, 120),
                "temperature": 0.9,
                "top_p": 0.95,
                "seed": seed,
                "logprobs": 5,
                "ignore_eos": True,
            }
            for seed in range(21)
        ]
        with (
            running_server(llama_folder, *PLAIN, *options) as server,
            httpx.Client(base_url=server.url or "", timeout=PATIENCE) as client,
            ThreadPoolExecutor(len(requests)) as pool,
        ):

            def answer(request: dict[str, Any], salt: str) -> dict[str, Any]:
                # What the other round has left in the prefix cache would spare this one its work.
                answer = client.post("/v1/completions", json=request | {"cache_salt": salt})
                assert answer.status_code == 200, answer.text
                return answer.json()["choices"][0]

            alone = [answer(request, "alone") for request in requests]
            assert server.metric("vllm:num_preemptions_total") == 0
            together = list(pool.map(lambda request: answer(request, "together"), requests))
            assert server.metric("vllm:num_preemptions_total") > 0
        assert together == alone
        assert len({choice["text"] for choice in alone}) == len(requests)

    def test_it_is_refused_where_it_cannot_be_kept(self, llama_folder: Path) -> None:
        with started_server(llama_folder, "--batch-invariant", "--block-size", "16") as server:
            assert server.wait_end() == 2
            (line,) = server.lines
            assert line.startswith("slipway-serve: error: --batch-invariant needs the compiled CPU kernels")
            assert "--block-size 32" in line


class TestFairness:
    def test_a_short_request_overtakes_a_long_prompt(self, server_of_small_steps: RunningServer) -> None:
        """Each ends with its first token. The long one takes hundreds of steps, of which the short one needs a few."""
        server = server_of_small_steps
        with ThreadPoolExecutor(1) as pool:
            long = pool.submit(complete, server, some_ids(8000, seed=1), max_tokens=1)
            wait_for(server, running=1, waiting=0)
            complete(server, some_ids(20, seed=2), max_tokens=1)
            long.result()
        assert order_of_completion(server, {20, 8000}) == [20, 8000]

    def test_a_better_priority_overtakes_those_that_wait(self, server_of_one_at_a_time: RunningServer) -> None:
        """Each has a prompt of another length, to be known by."""
        server = server_of_one_at_a_time
        waiting: list[Future[dict[str, Any]]] = []
        with ThreadPoolExecutor(3) as pool:
            with server.client() as client:
                extra = {"ignore_eos": True, "priority": -1}
                stream = client.completions.create(
                    model="llama", prompt=[9], max_tokens=8000, stream=True, extra_body=extra
                )
                wait_for(server, running=1, waiting=0)
                for length, priority in ((11, 1), (12, 1), (13, 0)):
                    waiting.append(pool.submit(complete, server, some_ids(length, seed=length), priority=priority))
                    wait_for(server, running=1, waiting=len(waiting))
                stream.close()
            answers: Iterable[dict[str, Any]] = [future.result() for future in waiting]
        assert [answer["usage"]["prompt_tokens"] for answer in answers] == [11, 12, 13]
        assert order_of_completion(server, {11, 12, 13}) == [13, 11, 12]


class TestPrefixCaching:
    PREFIX = some_ids(200, seed=6)

    def test_a_shared_beginning_is_found_again_under_its_salt_alone(
        self, server_of_small_steps: RunningServer, server_of_one_at_a_time: RunningServer
    ) -> None:
        cached, uncached = server_of_small_steps, server_of_one_at_a_time

        def send(server: RunningServer, last: int, **fields: Any) -> tuple[int, dict[str, Any]]:
            answer = complete(server, [*self.PREFIX, last], logprobs=1, **fields)
            return answer["usage"]["prompt_tokens_details"]["cached_tokens"], answer["choices"][0]

        num_cached, _ = send(cached, 7)
        assert num_cached == 0
        num_cached, found = send(cached, 8)
        assert num_cached == 192  # six blocks of 32 tokens
        for salt, expected in (("a", 0), ("b", 0), ("a", 192)):
            num_cached, salted = send(cached, 8, cache_salt=salt)
            assert num_cached == expected
            assert_same_answer(salted, found)
        for _ in range(2):
            num_cached, computed = send(uncached, 8)
            assert num_cached == 0
            assert_same_answer(computed, found)


def assert_same_answer(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["logprobs"]["tokens"] == other["logprobs"]["tokens"]
    assert one["logprobs"]["token_logprobs"] == pytest.approx(other["logprobs"]["token_logprobs"], abs=1e-4)
