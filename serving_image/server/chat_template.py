"""Chat messages to a prompt, by the model's own Jinja template, rendered as Transformers renders it.

The template came with the model, so it runs in Jinja's immutable sandbox: no attribute that begins with an
underscore, no change to its arguments, no module. What it can see is data, three functions and one filter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from serving_image.errors import StartupError
from serving_image.server.errors import ApiError
from serving_image.server.model_folder import read_json


class _GenerationBlock(Extension):
    """``{% generation %}…{% endgeneration %}`` marks assistant text for training; for serving it is its content."""

    tags = {"generation"}  # noqa: RUF012 - Jinja declares it as an instance variable

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A compiled template.

    :param source: Jinja text.
    :param special_tokens: the template's variables ``bos_token``, ``eos_token``, ….
    :param now: the clock behind ``strftime_now``.
    :raises StartupError: the text is not a template.
    """

    def __init__(
        self, source: str, special_tokens: Mapping[str, str], now: Callable[[], datetime] = datetime.now
    ) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _GenerationBlock]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda format_: now().strftime(format_)
        self._special_tokens = dict(special_tokens)
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            message = f"The chat template is not valid: {error}."
            raise StartupError(message, "Give a working one with --chat-template FILE.") from error

    def render(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True) -> str:
        """The prompt for a conversation.

        :raises ApiError: the template refuses the conversation, or cannot render it (400).
        """
        try:
            return self._template.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._special_tokens,
            )
        except Exception as error:  # a template is foreign code: any failure of its is the conversation's
            raise ApiError(
                400, f"The model's chat template refused these messages: {error}", param="messages"
            ) from error


def load_chat_template(folder: Path, override: str | None, special_tokens: Mapping[str, str]) -> ChatTemplate | None:
    """The template given on the command line, else ``chat_template.jinja``, else that of ``tokenizer_config.json``.

    :returns: None for a model without one: it can complete, but not chat.
    :raises StartupError: the template is not valid.
    """
    source = override if override is not None else _own_template(folder)
    return None if source is None else ChatTemplate(source, special_tokens)


def _own_template(folder: Path) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    found = read_json(folder, "tokenizer_config.json").get("chat_template")
    if isinstance(found, list):
        named = {entry["name"]: entry["template"] for entry in found}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML, which a prompt must not have."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
