"""The one place that reads a ``config.json``: typed access with errors that name the file and the field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from serving_image.errors import StartupError

_Chosen = TypeVar("_Chosen")
_MAX_BYTES = 8 << 20
"""Real files are below 100 KB; a bound keeps a mistaken path from being read whole."""

_MAX_NUMBER = 1e15
"""Real fields are below 1e12."""


class HFConfig:
    """A Hugging Face ``config.json`` or a section of it."""

    def __init__(self, path: Path, fields: Mapping[str, Any]) -> None:
        self.path = path
        self._fields = fields

    @classmethod
    def load(cls, folder: Path) -> HFConfig:
        """Read ``folder/config.json``.

        :raises StartupError: there is none, or it is not a JSON object.
        """
        path = folder / "config.json"
        try:
            with path.open("rb") as file:
                fields = json.loads(file.read(_MAX_BYTES))
        except FileNotFoundError:
            raise StartupError(
                f"{folder} has no config.json.", "Give a folder with a Hugging Face model in it."
            ) from None
        except (OSError, ValueError) as error:
            raise StartupError(f"{path} cannot be read: {error}.", "Download the model again.") from error
        if not isinstance(fields, dict):
            raise StartupError(f"{path} is not a JSON object.", "Download the model again.")
        return cls(path, fields)

    @property
    def architecture(self) -> str:
        """The first of ``architectures``, such as ``LlamaForCausalLM``."""
        names = self._fields.get("architectures")
        if not isinstance(names, list) or not names or not isinstance(names[0], str):
            raise self.error("it does not name an architecture")
        return names[0]

    @property
    def dtype(self) -> str | None:
        """The checkpoint's dtype as written, such as ``bfloat16``; None if it is not stated."""
        stated = self._fields.get("dtype", self._fields.get("torch_dtype"))
        return stated.removeprefix("torch.") if isinstance(stated, str) else None

    @property
    def quantization_method(self) -> str | None:
        """The method of ``quantization_config``; None for a plain checkpoint."""
        section = self._fields.get("quantization_config")
        return str(section.get("quant_method", "unknown")) if isinstance(section, dict) else None

    def error(self, problem: str) -> StartupError:
        """An error about this file."""
        return StartupError(f"{self.path}: {problem}.", "Use a model of a supported architecture, unmodified.")

    def section(self, key: str) -> HFConfig:
        """A nested object; an empty section if it is absent or null."""
        value = self._fields.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.error(f"{key} must be an object, not {value!r}")
        return HFConfig(self.path, value or {})

    def respelled(self, spellings: Mapping[str, str]) -> HFConfig:
        """The same with some fields under another name as well: the one to read by the one in the file, such as
        ``{"n_embd": "hidden_size"}``."""
        added = {ours: self._fields[theirs] for theirs, ours in spellings.items() if theirs in self}
        return HFConfig(self.path, {**self._fields, **added})

    def demand(self, key: str, served: Any) -> None:
        """Refuse a field that has another value than the one that is served; absent or null is well.

        :raises StartupError: naming the field and both values.
        """
        if key in self and self._fields[key] != served:
            raise self.error(f"{key} is {self._fields[key]!r}; only {served!r} is supported")

    def __bool__(self) -> bool:
        return bool(self._fields)

    def __contains__(self, key: str) -> bool:
        """Whether the field is there and not null."""
        return self._fields.get(key) is not None

    def is_string(self, key: str) -> bool:
        """Whether the field is a string, where it may be something else."""
        return isinstance(self._fields.get(key), str)

    def positive_int(self, key: str, default: int | None = None) -> int:
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise self.error(f"{key} must be a positive whole number, not {value!r}")
        return value

    def count(self, key: str, default: int) -> int:
        """A whole number, perhaps 0."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.error(f"{key} must be a whole number, not {value!r}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._value(key, default)
        # Python reads NaN and Infinity out of JSON, and powers of very large numbers overflow.
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= _MAX_NUMBER:
            raise self.error(f"{key} must be a positive number, not {value!r}")
        return float(value)

    def optional_number(self, key: str, default: float | None = None) -> float | None:
        """A positive number; None if it is null, ``default`` if it is absent."""
        return None if self._fields.get(key, default) is None else self.number(key, default)

    def optional_int(self, key: str, default: int | None = None) -> int | None:
        """A positive whole number; None if it is null, ``default`` if it is absent."""
        return None if self._fields.get(key, default) is None else self.positive_int(key, default)

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of numbers."""
        values = self._value(key, None)
        if not isinstance(values, list) or not all(
            isinstance(v, (int, float)) and not isinstance(v, bool) for v in values
        ):
            raise self.error(f"{key} must be a list of numbers, not {str(values)[:60]}")
        return tuple(map(float, values))

    def strings(self, key: str) -> tuple[str, ...]:
        """A list of strings; empty if it is absent or null."""
        values = self._fields.get(key) or []
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise self.error(f"{key} must be a list of strings, not {str(values)[:60]}")
        return tuple(values)

    def sections(self, key: str) -> list[HFConfig]:
        """A list of objects; empty if it is absent or null."""
        values = self._fields.get(key) or []
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise self.error(f"{key} must be a list of objects, not {str(values)[:60]}")
        return [HFConfig(self.path, value) for value in values]

    def integers(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers; empty if it is absent or null."""
        values = self._fields.get(key) or []
        if not isinstance(values, list) or not all(isinstance(v, int) and not isinstance(v, bool) for v in values):
            raise self.error(f"{key} must be a list of whole numbers, not {str(values)[:60]}")
        return tuple(values)

    def choice(self, key: str, choices: Mapping[str, _Chosen], default: str) -> _Chosen:
        """What ``choices`` has for a string.

        :raises StartupError: it is none of them; the error lists them.
        """
        value = self.string(key, default)
        if value not in choices:
            raise self.error(f'{key} is "{value}"; supported: {", ".join(choices)}')
        return choices[value]

    def boolean(self, key: str, default: bool) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self.error(f"{key} must be true or false, not {value!r}")
        return value

    def string(self, key: str, default: str) -> str:
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self.error(f"{key} must be a string, not {value!r}")
        return value

    def _value(self, key: str, default: Any) -> Any:
        value = self._fields.get(key)
        if value is None:
            value = default
        if value is None:
            raise self.error(f"{key} is missing")
        return value
