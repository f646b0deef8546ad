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

import msgspec
from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from serving_image.errors import StartupError
from serving_image.server.errors import ApiError
from serving_image.server.model_folder import read_json

#: How a person gives the server a template.
HOW_TO_GIVE = "--chat-template FILE, or NAME of a bundled one (slipway-serve --help lists them)"


class _NamedTemplate(msgspec.Struct):
    name: str
    template: str


class _GenerationBlock(Extension):
    """``{% generation %}…{% endgeneration %}`` marks assistant text for training; for serving it is its content."""

    tags = {"generation"}  # noqa: RUF012 - Jinja declares it as an instance variable

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A compiled template.

    A template may ``set`` a constant list of texts named ``stop_strings``: what ends an answer besides the end tokens.

    :param source: Jinja text.
    :param special_tokens: the template's variables ``bos_token``, ``eos_token``, ….
    :param now: the clock behind ``strftime_now``.
    :ivar stop_strings: as the template sets them.
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
            self.stop_strings = _stop_strings(environment.parse(source))
        except TemplateError as error:
            message = f"The chat template is not valid: {error}."
            raise StartupError(message, f"Give a working one with {HOW_TO_GIVE}.") from error

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
    """The template given on the command line, else that of ``chat_template.jinja``, ``chat_template.json`` or
    ``tokenizer_config.json``, in this order.

    :returns: None for a model without one: it can complete, but not chat.
    :raises StartupError: the template is not valid.
    """
    source = override if override is not None else _own_template(folder)
    return None if source is None else ChatTemplate(source, special_tokens)


def _own_template(folder: Path) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        found = read_json(folder, name).get("chat_template")
        if found is not None:
            return _default(found, name)
    return None


def _default(found: object, name: str) -> str | None:
    """A template, or the default one of several with names. None: there are several, none of them for plain chats."""
    try:
        several = msgspec.convert(found, str | list[_NamedTemplate])
    except msgspec.ValidationError as error:
        message = f"The chat template in {name} is not valid: {error}."
        raise StartupError(message, f"Give a working one with {HOW_TO_GIVE}.") from error
    if isinstance(several, str):
        return several
    return next((entry.template for entry in several if entry.name == "default"), None)


def _stop_strings(template: nodes.Template) -> tuple[str, ...]:
    for assignment in template.find_all(nodes.Assign):
        target, value = assignment.target, assignment.node
        if isinstance(target, nodes.Name) and target.name == "stop_strings" and isinstance(value, nodes.Expr):
            try:
                return tuple(msgspec.convert(value.as_const(), list[str]))
            except (nodes.Impossible, msgspec.ValidationError):
                return ()  # the template's own variable of that name
    return ()


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
