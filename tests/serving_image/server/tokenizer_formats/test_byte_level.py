"""``vocab.json`` with ``merges.txt`` against Transformers' classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from serving_image.errors import StartupError
from serving_image.server.tokenizer_formats import load_tokenizer
from tests.serving_image.server.tokenizer_formats.vocabularies import (
    EXAMPLES,
    TEXTS,
    write_byte_level,
    write_config,
)

#: The files as the families publish them: the class, special tokens that the vocabulary begins with, other fields.
FAMILIES: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "GPT-2": ("GPT2Tokenizer", ("<|endoftext|>",), {}),
    "GPT-2 with a space before": ("GPT2Tokenizer", ("<|endoftext|>",), {"add_prefix_space": True}),
    "OPT": (
        "GPT2Tokenizer",
        ("<s>", "<pad>", "</s>", "<unk>"),
        {"add_bos_token": True, "bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"},
    ),
    "CodeGen": ("CodeGenTokenizer", ("<|endoftext|>",), {}),
    "Qwen2": ("Qwen2Tokenizer", ("<|endoftext|>", "<|im_start|>"), {"eos_token": "<|endoftext|>"}),
}


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tmp_path_factory):
    """Ours, and Transformers' slow loading of the same two files."""
    import transformers

    class_, special, fields = FAMILIES[request.param]
    folder: Path = tmp_path_factory.mktemp("model")
    write_byte_level(folder, special)
    write_config(folder, tokenizer_class=class_, **fields)
    theirs = getattr(transformers, class_).from_pretrained(folder)
    return load_tokenizer(folder), theirs


@settings(deadline=None, max_examples=60)
@given(text=TEXTS)
def test_texts_become_the_tokens_that_transformers_makes(text, pair):
    loaded, theirs = pair
    ids = theirs(text).input_ids
    assert loaded.tokenizer.encode(text).ids == ids
    assert loaded.tokenizer.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("text", [*EXAMPLES, "<|endoftext|> the<|endoftext|>"])
def test_usual_texts_too(text, pair):
    loaded, theirs = pair
    assert loaded.tokenizer.encode(text).ids == theirs(text).input_ids


def test_the_end_token_is_the_one_of_transformers(pair):
    loaded, theirs = pair
    assert loaded.special_tokens["eos_token"] == theirs.eos_token
    assert loaded.tokenizer.token_to_id(theirs.eos_token) == theirs.eos_token_id


class TestRefusals:
    @pytest.mark.parametrize(
        ("vocabulary", "merges", "said"),
        [
            ("[]", "a b\n", r"vocab\.json is not a usable part"),
            ('{"a": "b"}', "a b\n", r"vocab\.json is not a usable part"),
            ('{"a": 0, "b": 1, "ab": 2}', "#version: 0.2\na b\nab\n", "no pair in line 3"),
            ('{"a": 0, "b": 1}', "a b\n", r"vocab\.json is not a usable tokenizer: .*ab.*out of vocabulary"),
        ],
    )
    def test_files_that_cannot_be_used_are_named(self, vocabulary, merges, said, tmp_path):
        (tmp_path / "vocab.json").write_text(vocabulary)
        (tmp_path / "merges.txt").write_text(merges)
        with pytest.raises(StartupError, match=said):
            load_tokenizer(tmp_path)

    def test_one_file_without_the_other_is_told(self, tmp_path):
        (tmp_path / "vocab.json").write_text(json.dumps({"a": 0}))
        with pytest.raises(StartupError, match=r"merges\.txt is not a usable part of a tokenizer: No such file"):
            load_tokenizer(tmp_path)
