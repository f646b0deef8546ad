"""What a chat template does beside the prompt: it ends answers, and without one there is no chat."""

from __future__ import annotations

import json

import openai
import pytest

from tests.serving_image.conftest import make_echo_model
from tests.serving_image.serving import running_server


def ask(client: openai.OpenAI, content: str, **fields):
    messages = [{"role": "user", "content": content}]
    return client.chat.completions.create(model="echo", messages=messages, max_tokens=9, **fields).choices[0]


def test_answers_end_with_the_texts_and_the_tokens_that_the_template_names(tmp_path):
    template = tmp_path / "template.jinja"
    template.write_text("{% set stop_strings = ['END', '<s>'] %}{{ messages[-1]['content'] }}")
    folder = make_echo_model(tmp_path / "echo")
    options = ["--served-model-name", "echo", "--chat-template", str(template)]
    with running_server(folder, *options, engine="echo") as server, server.client() as client:
        for content, fields, answer in (
            ("abcENDdef", {}, ("abc", "stop")),
            ("ab<s>cdef", {}, ("ab", "stop")),
            ("abc!defgh", {"stop": "!"}, ("abc", "stop")),
            ("abcdefghi", {}, ("abcdefghi", "length")),
            ("abcENDdef", {"extra_body": {"ignore_eos": True}}, ("abcENDdef", "length")),
        ):
            choice = ask(client, content, **fields)
            assert (choice.message.content, choice.finish_reason) == answer
        completion = client.completions.create(model="echo", prompt="abcENDdef", max_tokens=9).choices[0]
        assert completion.text == "abcENDdef"


def test_a_model_without_a_template_says_how_to_give_it_one(tmp_path):
    folder = make_echo_model(tmp_path / "echo")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with running_server(folder, "--served-model-name", "echo", engine="echo") as server, server.client() as client:
        with pytest.raises(
            openai.BadRequestError, match=r"has no chat template.*--chat-template FILE, or NAME"
        ) as error:
            ask(client, "hello")
        assert error.value.code == "no_chat_template"
        assert client.completions.create(model="echo", prompt="abc", max_tokens=3).choices[0].text == "abc"
