"""The server and the real engine together, against Transformers."""

from __future__ import annotations

import os
import random
import signal
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.serving_image.serving import running_server, wait_until


@pytest.fixture(scope="module")
def reference(llama_folder):
    """Greedy continuations by Transformers: prompt ids and a length to ids."""
    import torch
    from transformers import LlamaForCausalLM

    torch.set_num_threads(1)
    model = LlamaForCausalLM.from_pretrained(llama_folder, dtype=torch.float32)

    def greedy(prompt: list[int], length: int) -> list[int]:
        ids = torch.tensor([prompt])
        output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=length, do_sample=False)
        return output[0, len(prompt) :].tolist()

    return greedy


def text_of(server, ids: list[int]) -> str:
    """What the server makes of ids: the end token, 1, has no text."""
    return whole_characters(server.post("/detokenize", {"tokens": [id_ for id_ in ids if id_ != 1]}).json()["prompt"])


def whole_characters(text: str) -> str:
    """Without the bytes at the end that are no character yet, which the server does not give out."""
    return text.rstrip("\N{REPLACEMENT CHARACTER}")


def test_32_requests_at_once_equal_transformers_token_for_token(llama_server, reference):
    """Half of them streamed, prompts of 1 to 250 letters, answers of 1 to 40 tokens; greedy in float32."""
    choose = random.Random(3)  # noqa: S311
    work = [
        (
            "".join(choose.choices("abcdef shiplaunch", k=choose.randint(1, 250))),
            choose.randint(1, 40),
            bool(number % 2),
        )
        for number in range(32)
    ]
    with llama_server.client() as client, ThreadPoolExecutor(32) as pool:

        def answer(prompt: str, length: int, stream: bool) -> tuple[str, int]:
            fields = {"model": "llama", "prompt": prompt, "max_tokens": length, "temperature": 0}
            fields["extra_body"] = {"skip_special_tokens": False}
            if not stream:
                whole = client.completions.create(**fields)
                return whole.choices[0].text, whole.usage.completion_tokens
            chunks = list(client.completions.create(**fields, stream=True, stream_options={"include_usage": True}))
            text = "".join(chunk.choices[0].text for chunk in chunks[:-1])
            return text, chunks[-1].usage.completion_tokens

        answers = list(pool.map(lambda item: answer(*item), work))
    for (prompt, length, _), (text, num_tokens) in zip(work, answers, strict=True):
        expected = reference(llama_server.post("/tokenize", {"prompt": prompt}).json()["tokens"], length)
        assert whole_characters(text) == text_of(llama_server, expected)
        assert num_tokens == len(expected)


def test_a_seed_makes_sampling_repeatable_and_answers_of_one_request_differ(llama_server):
    with llama_server.client() as client:
        fields = {"model": "llama", "prompt": "The quick", "max_tokens": 20, "temperature": 1.0, "n": 2}
        first, second, other = (
            [choice.text for choice in client.completions.create(**fields, seed=seed).choices] for seed in (1, 1, 2)
        )
    assert first == second
    assert first != other
    assert first[0] != first[1]


def test_blocks_are_free_again_when_all_is_done(llama_server):
    with llama_server.client() as client:
        client.completions.create(model="llama", prompt="The quick brown fox", max_tokens=30)
    wait_until(lambda: llama_server.metric("vllm:kv_cache_usage_perc") == 0, "the blocks are free")
    assert llama_server.metric("vllm:num_requests_running") == 0


def test_a_sigkill_of_the_server_leaves_no_engine_and_no_file(llama_folder, tmp_path):
    options = ["--threads", "1", "--kv-cache-memory", "33554432"]
    with running_server(llama_folder, *options, TMPDIR=str(tmp_path)) as server:
        engine = server.engine
        os.kill(server.process.pid, signal.SIGKILL)
        wait_until(lambda: not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE, "the engine ends")
    assert list(tmp_path.glob("slipway-serve-*")) == []


def test_sigterm_lets_the_real_engine_finish_its_answer(llama_folder):
    with (
        running_server(llama_folder, "--threads", "1", "--kv-cache-memory", "33554432") as server,
        ThreadPoolExecutor() as pool,
    ):
        body = {"prompt": "The quick", "max_tokens": 400, "ignore_eos": True}
        answer = pool.submit(server.post, "/v1/completions", body)
        wait_until(lambda: server.metric("vllm:num_requests_running") == 1, "the request runs")
        server.terminate()
        assert answer.result().json()["usage"]["completion_tokens"] == 400
        assert server.wait_end() == 0
