"""Chat templates against Transformers, which defines what they mean."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from tokenizers import Tokenizer as HuggingFaceTokenizer
from tokenizers import models

from serving_image.errors import StartupError
from serving_image.server.chat_template import ChatTemplate, load_chat_template
from serving_image.server.errors import ApiError

MESSAGES = [
    {"role": "system", "content": " You are <kind> & brief. "},
    {"role": "user", "content": 'Say "héllo" 🎉'},
    {"role": "assistant", "content": "héllo"},
    {"role": "user", "content": "Again\nplease"},
]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
TEMPLATES = {
    "whitespace": """
        {%- for message in messages %}
            {%- if loop.first and message['role'] == 'system' %}
                {{- bos_token + message['content'] | trim }}
            {%- else %}
    [{{ message.role }}] {{ message.content }}{{ eos_token }}
            {%- endif %}
        {%- endfor %}
        {%- if add_generation_prompt %}
    [assistant]
        {%- endif %}
    """,
    "blocks are trimmed": (
        "{% for m in messages %}\n    {% if true %}\n{{ m.content }}\n    {% endif %}\n{% endfor %}\nend\n"
    ),
    "tojson": (
        "{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}{{ {'b': 1, 'a': '<é>'} | tojson(sort_keys=true) }}"
    ),
    "loop controls": (
        "{% for m in messages %}{% if loop.index == 2 %}{% continue %}{% endif %}{{ m.role }}"
        "{% if loop.index == 3 %}{% break %}{% endif %}{% endfor %}"
    ),
    "namespace": (
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + m.content | length %}{% endfor %}"
        "{{ ns.n }}"
    ),
    "no tools": (
        "{% if tools is defined and tools %}tools{% elif tools is none %}none{% endif %}{{ documents is none }}"
    ),
    "generation": (
        "{% for m in messages %}{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}{% endgeneration %}{% endif %}{% endfor %}"
    ),
    "macro": (
        "{% macro show(m) %}<{{ m.role }}>{{ m['content'] }}{% endmacro %}{{ show(messages[1]) }}{{ unknown_variable }}"
    ),
    "year": "{{ strftime_now('%Y') }}",
}


@pytest.fixture(scope="module")
def transformers_tokenizer():
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=HuggingFaceTokenizer(models.BPE()), **SPECIAL)


@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize("name", TEMPLATES)
def test_renders_as_transformers_does(name, add_generation_prompt, transformers_tokenizer):
    theirs = transformers_tokenizer.apply_chat_template(
        MESSAGES, chat_template=TEMPLATES[name], add_generation_prompt=add_generation_prompt, tokenize=False
    )
    ours = ChatTemplate(TEMPLATES[name], SPECIAL).render(MESSAGES, add_generation_prompt=add_generation_prompt)
    assert ours == theirs


def test_the_date_is_that_of_the_clock():
    template = ChatTemplate("{{ strftime_now('%d %b %Y') }}", {}, now=lambda: datetime(2026, 2, 3))
    assert template.render(MESSAGES) == "03 Feb 2026"


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('Roles must alternate') }}",
        "{{ messages[99].content }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages[0]['content'] / 2 }}",
    ],
)
def test_a_template_that_fails_or_reaches_out_is_a_bad_request(source):
    with pytest.raises(ApiError) as error:
        ChatTemplate(source, {}).render(MESSAGES)
    assert error.value.status == 400


def test_the_reason_of_a_template_reaches_the_client():
    with pytest.raises(ApiError, match="Roles must alternate"):
        ChatTemplate("{{ raise_exception('Roles must alternate') }}", {}).render(MESSAGES)


def test_a_template_that_is_none_is_a_startup_error():
    with pytest.raises(StartupError, match="chat template"):
        ChatTemplate("{% for %}", {})


@pytest.mark.parametrize(
    ("source", "stops"),
    [
        ("{% set stop_strings = ['a', 'b'] %}", ("a", "b")),
        ("{%- set x = 1 %}{%- set stop_strings = ['<|end|>'] %}", ("<|end|>",)),
        ("", ()),
        ("{% set stop_strings = [messages[0].role] %}", ()),
        ("{% set stop_strings = 'abc' %}", ()),
    ],
)
def test_a_template_may_say_what_ends_an_answer(source, stops):
    assert ChatTemplate(source, {}).stop_strings == stops


class TestWhereItComesFrom:
    def test_a_file_on_the_command_line_wins_over_the_models_own(self, tmp_path):
        (tmp_path / "chat_template.jinja").write_text("file")
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "config"}))
        assert load_chat_template(tmp_path, "given", {}).render(MESSAGES) == "given"
        assert load_chat_template(tmp_path, None, {}).render(MESSAGES) == "file"
        (tmp_path / "chat_template.jinja").unlink()
        assert load_chat_template(tmp_path, None, {}).render(MESSAGES) == "config"

    def test_a_file_of_its_own_wins_over_the_tokenizers_configuration(self, tmp_path):
        (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "file"}))
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "config"}))
        assert load_chat_template(tmp_path, None, {}).render(MESSAGES) == "file"

    @pytest.mark.parametrize("found", [7, [{"name": "default"}], ["default"]])
    def test_something_else_in_its_place_is_told(self, found, tmp_path):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": found}))
        with pytest.raises(StartupError, match=r"chat template in tokenizer_config\.json is not valid"):
            load_chat_template(tmp_path, None, {})

    def test_of_named_templates_the_default_is_taken(self, tmp_path):
        named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
        assert load_chat_template(tmp_path, None, {}).render(MESSAGES) == "plain"

    def test_a_model_without_one_has_none(self, tmp_path):
        assert load_chat_template(tmp_path, None, {}) is None
