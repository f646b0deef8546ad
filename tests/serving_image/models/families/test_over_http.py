"""``slipway-serve`` answers for every family, in a process of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.serving_image.models.families.all_cases import CASES_OF
from tests.serving_image.models.families.case import VOCAB_SIZE, Case
from tests.serving_image.serving import running_server

AT_ONCE = 3
PROMPT_LENGTH, NEW_TOKENS = 40, 8


def test_every_family_answers_with_the_references_greedy_tokens(tmp_path: Path) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        problems = pool.map(lambda name: _problem(CASES_OF[name][0], tmp_path / name), CASES_OF)
        failed = {name: problem for name, problem in zip(CASES_OF, problems, strict=True) if problem}
    assert not failed


def _problem(case: Case, folder: Path) -> str:
    """What is wrong with a family's answer; empty if nothing is."""
    folder.mkdir()
    reference = case.write(folder)
    _write_tokenizer(folder / "tokenizer.json")
    prompt = [(7 * index + 3) % VOCAB_SIZE for index in range(PROMPT_LENGTH)]
    body = {"model": "m", "prompt": prompt, "max_tokens": NEW_TOKENS, "temperature": 0, "ignore_eos": True}
    options = ("--served-model-name", "m", "--threads", "1", "--dtype", "float32", "--kv-cache-memory", str(64 << 20))
    try:
        with running_server(folder, *options) as server:
            answer = server.post("/v1/completions", body)
    except AssertionError as error:
        return str(error)
    if answer.status_code != 200:
        return answer.text
    tokens = [int(word.removeprefix("t")) for word in answer.json()["choices"][0]["text"].split()]
    if len(tokens) != NEW_TOKENS:
        return f"{len(tokens)} tokens: {tokens}"
    expected = reference(prompt + tokens)[PROMPT_LENGTH - 1 : -1].argmax(dim=1)
    return "" if torch.equal(torch.tensor(tokens), expected) else f"{tokens} instead of {expected.tolist()}"


def _write_tokenizer(path: Path) -> None:
    """One word for each token."""
    tokenizer = Tokenizer(models.WordLevel({f"t{id_}": id_ for id_ in range(VOCAB_SIZE)}, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path))
