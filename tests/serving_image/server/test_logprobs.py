"""Scored tokens in OpenAI's and vLLM's shapes, and when they are given out."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving_image.engine.protocol import TokenLogprobs
from serving_image.server.logprobs import (
    LOWEST,
    HeldTokens,
    ScoredToken,
    TopLogprob,
    chat_logprobs,
    completion_logprobs,
    prompt_logprobs,
    scored_prompt,
)
from serving_image.server.tokenizer import Tokenizer
from tests.serving_image.server.test_detokenizer import byte_level, sentence_piece, wrap

TEXTS = st.text(st.sampled_from("ab é€🎉👩‍🚀\n日"), max_size=20)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    """One token per byte, and some pairs that end inside a character."""
    return wrap(byte_level(), tmp_path_factory.mktemp("byte_level"))


@pytest.fixture(scope="module")
def llama_2(tmp_path_factory) -> Tokenizer:
    return wrap(sentence_piece(), tmp_path_factory.mktemp("sentence_piece"))


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer._encode(text, False)


def scored(token_id: int, logprob: float, *top: tuple[int, float], rank: int = 1) -> TokenLogprobs:
    return TokenLogprobs(token_id, logprob, rank, [id_ for id_, _ in top], [value for _, value in top])


class TestBytesOfTokens:
    @settings(deadline=None)
    @given(text=TEXTS)
    def test_byte_level_tokens_join_to_the_text(self, text, tokenizer):
        assert b"".join(map(tokenizer.bytes_of, ids(tokenizer, text))) == text.encode()

    @settings(deadline=None)
    @given(text=TEXTS.filter(bool))
    def test_sentence_piece_tokens_join_to_the_text_with_its_first_space(self, text, llama_2):
        assert b"".join(map(llama_2.bytes_of, ids(llama_2, text))) == b" " + text.encode()

    def test_special_tokens_show_their_names_and_padding_nothing(self):
        starter = Tokenizer(Path(__file__).parents[3] / "starter" / "model")
        assert starter.eos_token_id is not None
        assert starter.bytes_of(starter.eos_token_id).decode() == starter.special_tokens["eos_token"]
        assert starter.bytes_of(10**6) == b""


class TestShapes:
    def test_a_completion_has_the_token_itself_and_as_many_of_the_best_as_were_asked_for(self, tokenizer):
        a, b, c, d = ids(tokenizer, "abcd")
        tokens = [
            ScoredToken(a, 0, None),
            ScoredToken(d, 1, scored(d, -4.0, (a, -0.1), (b, -2.0), (c, -3.0), rank=4)),
            ScoredToken(b, 2, scored(b, -1.0, (b, -1.0), (c, -1.5), (a, -2.5))),
        ]
        shape = completion_logprobs(tokenizer, tokens, 2)
        assert shape.tokens == ["a", "d", "b"]
        assert shape.token_logprobs == [None, -4.0, -1.0]
        assert shape.top_logprobs == [None, {"d": -4.0, "a": -0.1, "b": -2.0}, {"b": -1.0, "c": -1.5}]
        assert shape.text_offset == [0, 1, 2]
        assert completion_logprobs(tokenizer, tokens[1:], 0).top_logprobs == [{"d": -4.0}, {"b": -1.0}]

    def test_parts_of_characters_share_a_text_and_the_chosen_one_counts(self, tokenizer):
        first, second, *_ = (tokenizer._tokenizer.token_to_id(letter) for letter in "âĤ¬")
        token = ScoredToken(second, 0, scored(second, -3.0, (first, -0.5), (second, -3.0)))
        shape = completion_logprobs(tokenizer, [token], 2)
        assert shape.tokens == ["\N{REPLACEMENT CHARACTER}"]
        assert shape.top_logprobs == [{"\N{REPLACEMENT CHARACTER}": -3.0}]

    def test_chat_names_the_bytes_of_parts_of_characters(self, tokenizer):
        euro = ids(tokenizer, "€")
        assert len(euro) == 3
        entries = [ScoredToken(id_, 0, scored(id_, -1.0, (euro[0], -0.5))) for id_ in euro]
        content = chat_logprobs(tokenizer, entries, 5).content
        assert bytes(byte for entry in content for byte in entry.bytes).decode() == "€"
        assert [entry.token for entry in content] == ["\N{REPLACEMENT CHARACTER}"] * 3
        assert content[1].top_logprobs == [TopLogprob("\N{REPLACEMENT CHARACTER}", -0.5, [0xE2])]
        assert chat_logprobs(tokenizer, entries, 0).content[0].top_logprobs == []

    def test_a_prompt_is_keyed_by_id_with_ranks(self, tokenizer):
        a, b, c = ids(tokenizer, "abc")
        first, entry = prompt_logprobs(tokenizer, [scored(c, -7.0, (a, -0.1), (b, -2.5), rank=9)], 2)
        assert first is None
        assert [(id_, one.logprob, one.rank, one.decoded_token) for id_, one in entry.items()] == [
            (c, -7.0, 9, "c"),
            (a, -0.1, 1, "a"),
            (b, -2.5, 2, "b"),
        ]

    def test_a_probability_of_0_is_a_number_in_json(self, tokenizer):
        (a,) = ids(tokenizer, "a")
        shape = completion_logprobs(tokenizer, [ScoredToken(a, 0, scored(a, -inf, (a, -inf)))], 1)
        assert (shape.token_logprobs, shape.top_logprobs) == ([LOWEST], [{"a": LOWEST}])

    def test_an_echoed_prompts_tokens_know_their_places(self, llama_2):
        text = "a é€b"
        token_ids = ids(llama_2, text)
        rest = [scored(id_, -1.0) for id_ in token_ids[1:]]
        tokens = scored_prompt(llama_2, token_ids, rest, len(text))
        assert [token.logprobs for token in tokens] == [None, *rest]
        # "▁a", then a space, é, three bytes of €, b.
        assert [token.text_offset for token in tokens] == [0, 1, 2, 3, 3, 3, 4]


class TestHolding:
    def test_tokens_wait_for_their_characters_to_be_given_out(self):
        held = HeldTokens()
        tokens = [ScoredToken(id_, 0, None) for id_ in range(5)]
        for token, end, unfinished in zip(tokens, (1, 1, 2, 4, 4), (False, True, False, False, False), strict=True):
            held.push(token, end, unfinished=unfinished)
        assert held.release(0) == []
        assert held.release(1) == tokens[:1]
        assert held.release(1) == []
        assert held.release(3) == tokens[1:3]
        assert held.release(4) == tokens[3:]
        assert held.flush() == []

    def test_the_end_gives_out_everything(self):
        held = HeldTokens()
        token = ScoredToken(1, 0, None)
        held.push(token, 9, unfinished=True)
        assert held.release(9) == []
        assert held.flush() == [token]
