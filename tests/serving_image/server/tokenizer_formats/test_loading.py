"""Which files make a tokenizer, and which do not."""

from __future__ import annotations

import json

import pytest

from serving_image.errors import StartupError
from serving_image.server.tokenizer import Tokenizer
from serving_image.server.tokenizer_formats import load_tokenizer
from tests.serving_image.server.test_detokenizer import pieces_of
from tests.serving_image.server.tokenizer_formats.vocabularies import (
    EXAMPLES,
    sentencepiece_bytes,
    write_byte_level,
    write_config,
    write_ranks,
)


def write_sentencepiece(folder, class_="LlamaTokenizer", **options):
    (folder / "tokenizer.model").write_bytes(sentencepiece_bytes(**options))
    write_config(folder, tokenizer_class=class_)


def write_qwen(folder):
    write_ranks(folder / "qwen.tiktoken")
    write_config(folder, tokenizer_class="QWenTokenizer")


def write_glm4(folder):
    write_ranks(folder / "tokenizer.model")
    write_config(folder, tokenizer_class="ChatGLM4Tokenizer")


KINDS = {
    "sentencepiece": write_sentencepiece,
    "sentencepiece without a space before": lambda folder: write_sentencepiece(folder, add_dummy_prefix=False),
    "unigram": lambda folder: write_sentencepiece(folder, model_type="unigram", vocab_size=500),
    "chatglm": lambda folder: write_sentencepiece(folder, "ChatGLMTokenizer"),
    "qwen": write_qwen,
    "glm4": write_glm4,
    "gpt2": lambda folder: write_byte_level(folder, ("<|endoftext|>",)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_gives_the_text_that_decoding_at_once_gives(kind, tmp_path):
    KINDS[kind](tmp_path)
    tokenizer = Tokenizer(tmp_path)
    for text in EXAMPLES:
        ids = tokenizer._encode(text, True)
        whole = tokenizer.decode(ids, skip_special_tokens=True)
        assert "".join(pieces_of(tokenizer, ids)) == whole
        assert whole == text
        assert b"".join(tokenizer.bytes_of(id_) for id_ in tokenizer._encode(text, False)).decode().endswith(text)


def test_code_that_comes_with_a_model_is_never_run(tmp_path):
    evidence = tmp_path / "ran"
    (tmp_path / "tokenization_baichuan.py").write_text(f"open({str(evidence)!r}, 'w')\nclass BaichuanTokenizer: ...\n")
    write_sentencepiece(tmp_path)
    auto_map = {"AutoTokenizer": ["tokenization_baichuan.BaichuanTokenizer", None]}
    write_config(tmp_path, tokenizer_class="BaichuanTokenizer", auto_map=auto_map)
    assert load_tokenizer(tmp_path).tokenizer.encode("the").ids
    assert not evidence.exists()


def test_tokenizer_json_wins_over_all_others(tmp_path):
    from tokenizers import Tokenizer as HuggingFaceTokenizer
    from tokenizers import models

    write_qwen(tmp_path)
    HuggingFaceTokenizer(models.WordLevel({"word": 7}, unk_token="word")).save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).tokenizer.encode("word").ids == [7]


def test_tokens_that_the_configuration_adds_to_tokenizer_json_are_those_of_transformers(tmp_path):
    from tokenizers import Tokenizer as HuggingFaceTokenizer
    from tokenizers import models
    from transformers import PreTrainedTokenizerFast

    HuggingFaceTokenizer(models.WordLevel({"word": 0, "<s>": 1}, unk_token="word")).save(
        str(tmp_path / "tokenizer.json")
    )
    added = {
        "1": {"content": "<s>", "special": True},
        "3": {"content": "<|later|>", "special": True},
        "2": {"content": "<|first|>", "special": False},
    }
    write_config(tmp_path, tokenizer_class="PreTrainedTokenizerFast", added_tokens_decoder=added)
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path).tokenizer
    ids = theirs("<|first|>word<|later|>").input_ids
    assert tokenizer.encode("<|first|>word<|later|>").ids == ids == [2, 0, 3]
    assert tokenizer.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("name", ["qwen", "sentencepiece", "gpt2"])
def test_without_a_class_the_files_tell(name, tmp_path):
    KINDS[name](tmp_path)
    (tmp_path / "tokenizer_config.json").unlink(missing_ok=True)
    assert (
        load_tokenizer(tmp_path).tokenizer.decode(load_tokenizer(tmp_path).tokenizer.encode("the fox").ids) == "the fox"
    )


def test_the_class_may_stand_in_config_json(tmp_path):
    write_glm4(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps({"tokenizer_class": "ChatGLM4Tokenizer"}))
    assert load_tokenizer(tmp_path).tokenizer.token_to_id("<sop>") is not None


class TestRefusals:
    def message(self, folder) -> str:
        with pytest.raises(StartupError) as error:
            load_tokenizer(folder)
        return str(error.value)

    def test_a_folder_without_a_tokenizer(self, tmp_path):
        assert "holds no tokenizer that could be read. Save the model's fast tokenizer" in self.message(tmp_path)

    def test_a_class_that_only_the_models_own_code_knows(self, tmp_path):
        write_config(
            tmp_path, tokenizer_class="StrangeTokenizer", auto_map={"AutoTokenizer": ["strange.Strange", None]}
        )
        message = self.message(tmp_path)
        assert (
            "tokenizer class StrangeTokenizer is none that is known; code that comes with a model is never" in message
        )
        assert "tokenizer.json" in message

    def test_a_known_class_without_its_file(self, tmp_path):
        write_config(tmp_path, tokenizer_class="QWenTokenizer")
        assert "neither tokenizer.json nor qwen.tiktoken, one of which QWenTokenizer needs" in self.message(tmp_path)

    def test_a_broken_tokenizer_json(self, tmp_path):
        (tmp_path / "tokenizer.json").write_text("{}")
        assert "is not a usable tokenizer" in self.message(tmp_path)

    @pytest.mark.parametrize(
        "fields", [{"add_bos_token": "perhaps"}, {"added_tokens_decoder": {"1": "x"}}, {"tokenizer_class": 7}]
    )
    def test_impossible_values(self, fields, tmp_path):
        write_config(tmp_path, **fields)
        assert "impossible value" in self.message(tmp_path)
