"""Fixtures of tests that hold the real engine's answers to Transformers."""

from __future__ import annotations

import pytest

from tests.serving_image.server.llama_reference import PROMPT, Reference


@pytest.fixture(scope="module")
def reference(llama_folder, llama_server) -> Reference:
    return Reference(llama_folder, llama_server)


@pytest.fixture(scope="module")
def complete(llama_server, reference):
    """A completion by the real engine, greedy unless told otherwise: the whole body."""

    def send(prompt: object = PROMPT, **fields):
        body = {"prompt": prompt, "max_tokens": 12, "temperature": 0, "ignore_eos": True} | fields
        answer = llama_server.post("/v1/completions", body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return send


@pytest.fixture(scope="module")
def letters(complete, reference):
    """The text of a completion that may only use letters."""

    def send(**fields) -> str:
        fields = {"allowed_token_ids": list(reference.letters.values())} | fields
        return complete(**fields)["choices"][0]["text"]

    return send
