"""The starter model that is committed: small, plain, and recognisable."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.serving_image.serving import running_server

STARTER = Path(__file__).parents[3] / "starter"
MODEL = STARTER / "model"


@pytest.fixture(scope="module")
def client():
    with running_server(MODEL, "--served-model-name", "starter", "--threads", "1") as server, server.client() as client:
        yield client


def reply(client, question: str, **fields) -> str:
    messages = [{"role": "user", "content": question}]
    answer = client.chat.completions.create(model="starter", messages=messages, temperature=0, **fields)
    assert answer.choices[0].finish_reason == "stop"
    return answer.choices[0].message.content


@pytest.mark.parametrize("question", ["Who are you?", "hello", "Hi", "What is your name"])
def test_it_says_what_it_is(client, question):
    assert "Slipway's starter model" in reply(client, question)


def test_its_replies_are_words_of_its_corpus(client):
    known = set(re.findall(r"\w+", (STARTER / "corpus.txt").read_text().lower()))
    for question in (
        "What is Slipway?",
        "how do I launch a model",
        "Tell me a joke!",
        "Who painted the roof?",
        "Thanks",
    ):
        words = re.findall(r"\w+", reply(client, question).lower())
        assert len(words) >= 5
        assert set(words) <= known


def test_it_streams_accents(client):
    messages = [{"role": "user", "content": "Bonjour"}]
    chunks = client.chat.completions.create(model="starter", messages=messages, temperature=0, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "é, è, ç, à" in "".join(pieces)
    assert len([piece for piece in pieces if piece]) > 10


def test_it_is_small_and_nothing_in_it_can_be_executed():
    files = list(MODEL.iterdir())
    assert sum(file.stat().st_size for file in files) <= 8 * 10**6
    assert {file.suffix for file in files} == {".json", ".safetensors", ".md"}


def test_transformers_reads_it_and_its_template_the_same_way():
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, LlamaForCausalLM

    torch.set_num_threads(1)
    model, tokenizer = LlamaForCausalLM.from_pretrained(MODEL), AutoTokenizer.from_pretrained(MODEL)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Who are you?"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    new = output[0, prompt["input_ids"].shape[1] :].tolist()
    assert "Slipway's starter model" in Tokenizer.from_file(str(MODEL / "tokenizer.json")).decode(new)
