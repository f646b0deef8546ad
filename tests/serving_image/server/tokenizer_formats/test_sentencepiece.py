"""``tokenizer.model`` against the ``sentencepiece`` library, and what Transformers and remote code add to it."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from serving_image.errors import StartupError
from serving_image.server.tokenizer import Tokenizer
from serving_image.server.tokenizer_formats import load_tokenizer
from tests.serving_image.server.tokenizer_formats.vocabularies import (
    EXAMPLES,
    TEXTS,
    TEXTS_WITHOUT_COMBINING,
    sentencepiece_bytes,
    write_config,
)

DEFINED = ("<sep>", "<sep>s", "▁▁", "好你", "th")
NORMALIZED: dict[str, Any] = {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True}
VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "no prefix space": {"add_dummy_prefix": False},
    "no byte fallback": {"byte_fallback": False},
    "user-defined pieces": {"user_defined_symbols": DEFINED},
    "user-defined pieces, no prefix space": {"user_defined_symbols": DEFINED, "add_dummy_prefix": False},
    "unigram": {"model_type": "unigram", "vocab_size": 500},
    # But for ▁▁: in a longer run of spaces two ways to cut it out are equally good.
    "unigram, user-defined pieces": {
        "model_type": "unigram",
        "vocab_size": 500,
        "user_defined_symbols": tuple(text for text in DEFINED if text != "▁▁"),
    },
}


def processor(**options: Any) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_bytes(**options))


def write(folder: Path, options: dict[str, Any] | None = None, **config: Any) -> Path:
    (folder / "tokenizer.model").write_bytes(sentencepiece_bytes(**(options or {})))
    write_config(folder, **config)
    return folder


@pytest.mark.parametrize("name", VARIANTS)
def test_texts_become_the_pieces_that_sentencepiece_makes(name, tmp_path):
    truth = processor(**VARIANTS[name])
    tokenizer = load_tokenizer(write(tmp_path, VARIANTS[name], add_bos_token=False)).tokenizer

    @settings(deadline=None, max_examples=60)
    @given(text=TEXTS)
    def same(text: str) -> None:
        ids = truth.encode(text)
        assert tokenizer.encode(text).ids == ids
        if truth.unk_id() not in ids:
            assert tokenizer.decode(ids) == truth.decode(ids)

    for text in EXAMPLES:
        same.hypothesis.inner_test(text)
    same()


@settings(deadline=None, max_examples=60)
@given(text=TEXTS_WITHOUT_COMBINING)
def test_texts_are_normalized_as_the_model_says(text, normalized):
    tokenizer, truth = normalized
    assert tokenizer.encode(text).ids == truth.encode(text)


@pytest.fixture(scope="module")
def normalized(tmp_path_factory):
    folder = write(tmp_path_factory.mktemp("normalized"), NORMALIZED, add_bos_token=False)
    return load_tokenizer(folder).tokenizer, processor(**NORMALIZED)


class TestSpecialTokens:
    @pytest.mark.parametrize("class_", ["BaichuanTokenizer", "InternLMTokenizer", "OrionTokenizer", "LlamaTokenizer"])
    def test_each_part_of_a_text_between_them_is_tokenized_by_itself(self, class_, tmp_path):
        sp = processor()
        after, instead = sp.get_piece_size(), sp.piece_to_id("狸")  # InternLM2 gives pieces of no use other names
        added = {after: {"content": "<|sep|>", "special": True}, instead: {"content": "<|im_end|>", "special": True}}
        loaded = load_tokenizer(
            write(tmp_path, tokenizer_class=class_, add_bos_token=False, added_tokens_decoder=added)
        )
        ids = [1, *sp.encode("the quick"), after, *sp.encode(" brown"), 2, *sp.encode("fox"), instead]
        assert loaded.tokenizer.encode("<s>the quick<|sep|> brown</s>fox<|im_end|>").ids == ids
        assert loaded.special_tokens == {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}

    @pytest.mark.parametrize("legacy", [False, True])
    def test_legacy_false_puts_a_prefix_space_only_where_the_text_begins(self, legacy, tmp_path):
        folder = write(tmp_path, tokenizer_class="LlamaTokenizer", add_bos_token=False, legacy=legacy)
        pieces = load_tokenizer(folder).tokenizer.encode("the</s>the").tokens
        assert pieces == ["▁the", "</s>", "▁the" if legacy else "the"]

    @pytest.mark.parametrize("text", [*EXAMPLES, "<s>the fox</s> the</s>the", "the<s>"])
    def test_legacy_false_is_what_transformers_makes_of_it(self, text, tmp_path):
        from transformers import LlamaTokenizer
        from transformers.convert_slow_tokenizer import generate_merges

        sp = processor()
        vocabulary = {sp.id_to_piece(id_): id_ for id_ in range(sp.get_piece_size())}
        theirs = LlamaTokenizer(vocabulary, generate_merges(vocabulary, None), legacy=False, add_bos_token=True)
        folder = write(tmp_path, tokenizer_class="LlamaTokenizer", add_bos_token=True, legacy=False)
        assert load_tokenizer(folder).tokenizer.encode(text).ids == theirs(text).input_ids

    def test_a_token_that_the_configuration_names_but_no_file_numbers_comes_last(self, tmp_path):
        tokenizer = load_tokenizer(write(tmp_path, pad_token="[PAD]")).tokenizer
        assert tokenizer.token_to_id("[PAD]") == processor().get_piece_size()

    def test_the_older_added_tokens_json_counts(self, tmp_path):
        write(tmp_path, add_bos_token=False)
        (tmp_path / "added_tokens.json").write_text(json.dumps({"<|extra|>": 702}))
        assert load_tokenizer(tmp_path).tokenizer.encode("<|extra|>").ids == [702]

    @pytest.mark.parametrize(
        ("flags", "before", "after"),
        [
            ({}, [1], []),
            ({"add_bos_token": False}, [], []),
            ({"add_bos_token": True, "add_eos_token": True}, [1], [2]),
        ],
    )
    def test_flags_say_what_stands_around_a_text(self, flags, before, after, tmp_path):
        tokenizer = load_tokenizer(write(tmp_path, **flags)).tokenizer
        plain = processor().encode("the fox")
        assert tokenizer.encode("the fox").ids == [*before, *plain, *after]
        assert tokenizer.encode("the fox", add_special_tokens=False).ids == plain
        assert tokenizer.decode([*before, *plain, *after], skip_special_tokens=True) == "the fox"


class TestChatGLM:
    #: In the order of the checkpoints' own code.
    SPECIAL = (
        "[MASK]",
        "[gMASK]",
        "[sMASK]",
        "sop",
        "eop",
        "<|system|>",
        "<|user|>",
        "<|assistant|>",
        "<|observation|>",
    )

    def test_special_tokens_follow_the_pieces_and_two_stand_before_every_text(self, tmp_path):
        truth = processor()
        ids = {token: truth.get_piece_size() + number for number, token in enumerate(self.SPECIAL)}
        tokenizer = load_tokenizer(write(tmp_path, tokenizer_class="ChatGLMTokenizer")).tokenizer
        assert {token: tokenizer.token_to_id(token) for token in self.SPECIAL} == ids
        assert tokenizer.encode("你好 the").ids == [ids["[gMASK]"], ids["sop"], *truth.encode("你好 the")]
        written = tokenizer.encode("<|user|>\n the<|assistant|>", add_special_tokens=False).ids
        assert written == [ids["<|user|>"], *truth.encode("\n the"), ids["<|assistant|>"]]


class TestXGLM:
    def test_the_first_pieces_have_fairseqs_numbers_and_the_last_seven_no_use(self, tmp_path):
        options = {"model_type": "unigram", "vocab_size": 300, "byte_fallback": False, **NORMALIZED}
        truth = processor(**options)
        (tmp_path / "sentencepiece.bpe.model").write_bytes(sentencepiece_bytes(**options))
        write_config(tmp_path, tokenizer_class="XGLMTokenizer")
        tokenizer = load_tokenizer(tmp_path).tokenizer
        assert [tokenizer.id_to_token(id_) for id_ in range(4)] == ["<s>", "<pad>", "</s>", "<unk>"]
        assert tokenizer.get_vocab_size() == truth.get_piece_size() + 1 + 7
        # SentencePiece's unknown piece is 0, and all after the three special ones move up by one.
        expected = [3 if id_ == 0 else id_ + 1 for id_ in truth.encode("the weather 好 \u0416")]
        assert tokenizer.encode("the weather 好 \u0416").ids == [2, *expected]


class TestRefusals:
    def cut(self, data: bytes) -> bytes:
        return data[: len(data) // 2 + 3]

    @pytest.mark.parametrize(
        "data", [b"", b"not a model", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0b"]
    )
    def test_other_bytes_are_told(self, data, tmp_path):
        (tmp_path / "tokenizer.model").write_bytes(data)
        with pytest.raises(StartupError, match=r"tokenizer\.model is not a SentencePiece model"):
            load_tokenizer(tmp_path)

    def test_a_file_that_ends_early_is_told(self, tmp_path):
        (tmp_path / "tokenizer.model").write_bytes(self.cut(sentencepiece_bytes()))
        with pytest.raises(StartupError, match="ends within a"):
            load_tokenizer(tmp_path)

    @settings(deadline=None, max_examples=50)
    @given(share=st.floats(0, 1, exclude_max=True), bytes_=st.binary(min_size=1, max_size=9), removed=st.integers(0, 9))
    def test_damage_is_told_if_it_is_not_read_over(self, share, bytes_, removed):
        whole = sentencepiece_bytes(**NORMALIZED)
        at = int(share * len(whole))
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "tokenizer.model").write_bytes(whole[:at] + bytes_ + whole[at + removed :])
            with contextlib.suppress(StartupError):
                load_tokenizer(Path(folder))

    def test_a_vocabulary_of_whole_words_is_told(self, tmp_path):
        options = {"model_type": "word", "vocab_size": 60, "byte_fallback": False}
        with pytest.raises(StartupError, match="kind that is not served"):
            load_tokenizer(write(tmp_path, options))

    def test_an_id_beyond_any_vocabulary_is_told(self, tmp_path):
        with pytest.raises(StartupError, match="adds a token with the id 99999999999"):
            load_tokenizer(write(tmp_path, added_tokens_decoder={"99999999999": {"content": "x"}}))


def test_a_token_that_is_a_byte_is_that_byte(tmp_path):
    tokenizer = Tokenizer(write(tmp_path))
    byte = processor().piece_to_id("<0xF0>")
    assert tokenizer.bytes_of(byte) == b"\xf0"
    assert tokenizer.bytes_of(processor().piece_to_id("▁the")) == b" the"
