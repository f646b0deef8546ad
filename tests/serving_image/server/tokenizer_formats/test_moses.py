"""BioGPT's tokenizer against Transformers' own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serving_image.server.tokenizer import Tokenizer
from serving_image.server.tokenizer_formats import load_tokenizer
from tests.serving_image.server.test_detokenizer import pieces_of
from tests.serving_image.server.tokenizer_formats.vocabularies import write_config

TEXTS = (
    "COVID-19 is (not) a state-of-the-art disease, it's 50% of them.",
    'He said "the brother\'s weather" & left; "they" <b> didn\'t [see].',
    "unknown žluťoučký 你好 letters",
    "the the\nthe\tthe  the",
    "",
)
LETTERS = "the brother's weather is not a state of disease COVID said they left see 50 19 ( ) . , ; & # % l g - @ q u"


def write_biogpt(folder: Path) -> Path:
    """Characters, and merges of which some lead to subwords that the vocabulary leaves out."""
    merges = [
        ("t", "h"),
        ("th", "e</w>"),
        ("i", "s</w>"),
        ("a", "t"),
        ("o", "t"),
        ("ot", "h"),
        ("oth", "e"),
        ("e", "r"),
    ]
    merges += [("e", "r</w>"), ("@", "-"), ("@-", "@</w>"), ("&", "a"), ("o", "s")]
    letters = sorted(set(LETTERS) - {" "})
    symbols = ["<s>", "<pad>", "</s>", "<unk>", *letters, *(letter + "</w>" for letter in letters)]
    symbols += [left + right for left, right in merges if left + right not in ("oth", "at")]
    vocabulary = {symbol: id_ for id_, symbol in enumerate(dict.fromkeys(symbols))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text(
        "".join(f"{left} {right} {1000 - i}\n" for i, (left, right) in enumerate(merges))
    )
    write_config(folder, tokenizer_class="BioGptTokenizer")
    return folder


@pytest.mark.parametrize("text", TEXTS)
def test_texts_become_what_transformers_makes_of_them(text, tmp_path):
    from transformers import BioGptTokenizer

    theirs = BioGptTokenizer.from_pretrained(write_biogpt(tmp_path))
    tokenizer = load_tokenizer(tmp_path).tokenizer
    ids = theirs(text).input_ids
    assert tokenizer.encode(text).ids == ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("text", TEXTS)
def test_a_stream_gives_the_text_that_decoding_at_once_gives(text, tmp_path):
    tokenizer = Tokenizer(write_biogpt(tmp_path))
    ids = tokenizer._encode(text, False)
    assert "".join(pieces_of(tokenizer, ids)) == tokenizer.decode(ids, skip_special_tokens=True)


def test_a_quotation_mark_closes_what_one_far_back_in_the_prompt_opened(tmp_path):
    tokenizer = Tokenizer(write_biogpt(tmp_path))
    quote = tokenizer._encode('"', False)
    opened = tokenizer._encode('see "the other the other the', False)
    assert "".join(pieces_of(tokenizer, quote, opened)) == '"'
    assert "".join(pieces_of(tokenizer, quote, tokenizer._encode("see the other the other the", False))) == ' "'
