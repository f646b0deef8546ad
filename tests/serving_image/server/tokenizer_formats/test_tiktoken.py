"""Files of ranks against the ``tiktoken`` library, with the patterns and special tokens of the models' own code."""

from __future__ import annotations

import base64
import unicodedata

import pytest
import tiktoken
from hypothesis import given, settings

from serving_image.errors import StartupError
from serving_image.server.tokenizer_formats import load_tokenizer
from tests.serving_image.server.tokenizer_formats.vocabularies import EXAMPLES, TEXTS, ranks, write_config, write_ranks

WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{number}|>" for number in range(205))]
GLM4_SPECIAL = ["<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>"]
GLM4_SPECIAL += ["<|assistant|>", "<|observation|>", "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>"]
GLM4_SPECIAL += ["<|end_of_video|>"]


def encoding(pattern: str, special: list[str]) -> tiktoken.Encoding:
    first = len(ranks())
    return tiktoken.Encoding(
        "tiny", pat_str=pattern, mergeable_ranks=ranks(), special_tokens={t: first + i for i, t in enumerate(special)}
    )


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen")
    write_ranks(folder / "qwen.tiktoken")
    write_config(folder, tokenizer_class="QWenTokenizer", auto_map={"AutoTokenizer": ["tokenization_qwen.X", None]})
    return load_tokenizer(folder), encoding(WORDS + r"\p{N}" + REST, QWEN_SPECIAL)


@pytest.fixture(scope="module")
def glm4(tmp_path_factory):
    folder = tmp_path_factory.mktemp("glm4")
    write_ranks(folder / "tokenizer.model")
    write_config(folder, tokenizer_class="ChatGLM4Tokenizer")
    return load_tokenizer(folder), encoding(WORDS + r"\p{N}{1,3}" + REST, GLM4_SPECIAL)


class TestQwen:
    @settings(deadline=None, max_examples=150)
    @given(text=TEXTS)
    def test_texts_become_the_tokens_that_tiktoken_makes(self, text, qwen):
        (loaded, truth), composed = qwen, unicodedata.normalize("NFC", text)
        ids = loaded.tokenizer.encode(text).ids
        assert ids == truth.encode(composed, allowed_special="all")
        assert loaded.tokenizer.decode(ids) == composed

    @pytest.mark.parametrize("text", EXAMPLES)
    def test_usual_texts_too(self, text, qwen):
        loaded, truth = qwen
        assert loaded.tokenizer.encode(text).ids == truth.encode(text)

    def test_special_tokens_follow_the_ranks(self, qwen):
        loaded, truth = qwen
        assert all(loaded.tokenizer.token_to_id(text) == truth.encode_single_token(text) for text in QWEN_SPECIAL)
        chat = "<|im_start|>user\nthe fox<|im_end|>\n<|im_start|>assistant\n"
        assert loaded.tokenizer.encode(chat).ids == truth.encode(chat, allowed_special="all")
        assert loaded.special_tokens["eos_token"] == "<|endoftext|>"


class TestGLM4:
    @settings(deadline=None, max_examples=150)
    @given(text=TEXTS)
    def test_texts_become_the_tokens_that_tiktoken_makes_after_two_special_ones(self, text, glm4):
        loaded, truth = glm4
        ids = truth.encode(text, disallowed_special=())
        prefix = [truth.encode_single_token(token) for token in ("[gMASK]", "<sop>")]
        assert loaded.tokenizer.encode(text).ids == prefix + ids
        assert loaded.tokenizer.decode(prefix + ids) == text

    def test_numbers_are_cut_into_threes(self, glm4):
        loaded, truth = glm4
        assert loaded.tokenizer.encode("12345678", add_special_tokens=False).ids == truth.encode("12345678")

    def test_special_tokens_follow_the_ranks(self, glm4):
        loaded, truth = glm4
        assert all(loaded.tokenizer.token_to_id(text) == truth.encode_single_token(text) for text in GLM4_SPECIAL)


class TestRefusals:
    def load(self, folder, content: bytes):
        (folder / "qwen.tiktoken").write_bytes(content)
        with pytest.raises(StartupError) as error:
            load_tokenizer(folder)
        return error.value.message

    @pytest.mark.parametrize("line", [b"IQ==", b"!!! 5", b"IQ== five", b"IQ== 5 6"])
    def test_a_line_that_is_no_token_with_its_rank_is_named(self, line, tmp_path):
        assert "line 2 is no token" in self.load(tmp_path, b"IQ== 0\n" + line)

    def test_bytes_that_could_not_be_written_are_told(self, tmp_path):
        assert "single bytes" in self.load(tmp_path, base64.b64encode(b"a") + b" 0\n")

    def test_an_empty_file_is_told(self, tmp_path):
        assert "single bytes" in self.load(tmp_path, b"")
