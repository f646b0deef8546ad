"""Incremental detokenization against decoding everything at once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HuggingFaceTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers

from serving_image.server.detokenizer import REPLACEMENT, IncrementalDetokenizer
from serving_image.server.tokenizer import Tokenizer


def wrap(inner: HuggingFaceTokenizer, folder) -> Tokenizer:
    inner.save(str(folder / "tokenizer.json"))
    return Tokenizer(folder)


def byte_level() -> HuggingFaceTokenizer:
    """Every byte is a token, as well as some pairs that end inside a character."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("ð", "Ł"), ("Ã", "©"), ("Ġ", "Ã")]
    vocab = {letter: id_ for id_, letter in enumerate(alphabet + [a + b for a, b in merges])}
    tokenizer = HuggingFaceTokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def sentence_piece() -> HuggingFaceTokenizer:
    """Llama 2's kind: spaces as ▁, unknown characters as byte tokens, the first space dropped."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "▁b", "é"]
    vocab = {piece: id_ for id_, piece in enumerate(pieces)}
    tokenizer = HuggingFaceTokenizer(
        models.BPE(vocab=vocab, merges=[("▁", "a"), ("▁", "b")], byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def pieces_of(tokenizer: Tokenizer, token_ids: list[int], prompt: list[int] | None = None) -> list[str]:
    detokenizer = IncrementalDetokenizer(tokenizer, prompt or [], skip_special_tokens=True)
    return [detokenizer.push(token_id) for token_id in token_ids]


TEXTS = st.text(st.sampled_from("ab é€🎉👩‍🚀\n日"), max_size=30)


@pytest.fixture(scope="module")
def tokenizer(request, tmp_path_factory) -> Tokenizer:
    """The kind that the test class names."""
    return wrap(request.param(), tmp_path_factory.mktemp("tokenizer"))


@pytest.mark.parametrize("tokenizer", [byte_level], indirect=True)
class TestByteLevel:
    @settings(deadline=None)
    @given(text=TEXTS)
    def test_text_comes_back_whole_and_never_in_halves(self, text, tokenizer):
        pieces = pieces_of(tokenizer, tokenizer._encode(text, False))
        assert "".join(pieces) == text
        assert not any(REPLACEMENT in piece for piece in pieces)

    @settings(deadline=None)
    @given(token_ids=st.lists(st.integers(0, 258), max_size=60))
    def test_any_tokens_give_what_decoding_at_once_gives(self, token_ids, tokenizer):
        """Random models write bytes that are no text: those become U+FFFD, except an unfinished end."""
        whole = tokenizer.decode(token_ids, skip_special_tokens=True)
        streamed = "".join(pieces_of(tokenizer, token_ids))
        assert whole.startswith(streamed)
        assert set(whole[len(streamed) :]) <= {REPLACEMENT}


@pytest.mark.parametrize("tokenizer", [sentence_piece], indirect=True)
class TestSentencePiece:
    @settings(deadline=None)
    @given(text=TEXTS)
    def test_text_comes_back_whole_and_never_in_halves(self, text, tokenizer):
        prompt = tokenizer._encode("a", False)
        pieces = pieces_of(tokenizer, tokenizer._encode(text, False), prompt)
        assert "".join(pieces) == (" " + text if text else "")
        assert not any(REPLACEMENT in piece for piece in pieces)

    def test_a_first_token_keeps_its_space_after_a_prompt_and_loses_it_without(self, tokenizer):
        word = tokenizer._encode("b", False)
        assert pieces_of(tokenizer, word, tokenizer._encode("a", False)) == [" b"]
        assert pieces_of(tokenizer, word) == ["b"]

    def test_a_run_of_invalid_bytes_is_given_out_before_it_ends(self, tokenizer):
        invalid = tokenizer._tokenizer.token_to_id("<0xFF>")
        assert len("".join(pieces_of(tokenizer, [invalid] * 200))) > 150
