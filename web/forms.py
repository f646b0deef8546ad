"""Forms: what a person typed, checked by the same schemas as the API's bodies."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from control_plane.errors import Invalid

Schema = TypeVar("Schema", bound=BaseModel)

#: Pydantic's kind of error → plainer words for the mistakes that people make; its limits can be named in them.
_WORDS = {
    "missing": "is needed",
    "string_too_long": "may have at most {max_length} characters",
    "string_pattern_mismatch": (
        "may have letters, digits, spaces, dots, dashes and underscores, and begins with a letter or digit"
    ),
    "int_parsing": "must be a whole number",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
}


class FormInvalid(Invalid):
    """Some fields will not do; ``messages`` says why, by field."""

    def __init__(self, messages: dict[str, str]) -> None:
        field, message = next(iter(messages.items()))
        super().__init__(f"{field}: {message}")
        self.messages = messages


def parsed(schema: type[Schema], values: dict[str, Any]) -> Schema:
    """``values`` as a ``schema``; fields left empty count as not given.

    :raises FormInvalid: some value breaks the schema's rules.
    """
    try:
        return schema.model_validate({name: value for name, value in values.items() if value not in ("", None)})
    except ValidationError as error:
        # The last part of the location is the field's name in the form: nested schemas have distinct names.
        raise FormInvalid(
            {str(e["loc"][-1]): _in_words(e["type"], e.get("ctx", {}), e["msg"]) for e in error.errors()}
        ) from error


def _in_words(kind: str, limits: dict[str, Any], message: str) -> str:
    return _WORDS.get(kind, message).format_map(limits)
