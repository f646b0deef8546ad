"""One model of the catalog: what models.yaml says of it, and what follows from that."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from control_plane.hub.architectures import Support, get_architectures
from control_plane.hub.config import DTYPE_BYTES, ModelConfig, read_config
from control_plane.sizing.machines import Machine, smallest_machine

#: Facts that can be compared with what others have published of the model.
Fact = Literal["architecture", "parameters", "dtype", "context", "license", "gated", "quantized"]
Tag = Literal["code", "distilled", "math", "moe", "multilingual", "reasoning", "small"]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)?$", max_length=193)]


class QuantizedVariant(BaseModel):
    """A repository with the same model's weights, compressed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Id
    method: Literal["awq", "compressed-tensors", "fp8", "gptq", "mxfp4"]


class CatalogEntry(BaseModel):
    """One model. ``config`` holds the lines of its config.json that sizes follow from, as they stand there.

    ``parameters`` counts all, experts included; ``context`` is in tokens; ``license`` is the hub's identifier, or its
    own short name where the hub says "other"; ``chat_template`` names one of the engine's, for models that bring none.
    ``checked`` lists the facts that agree with published material; the others are from memory.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Id
    name: str = Field(min_length=2, max_length=80)
    family: str = Field(pattern=r"^[A-Z0-9][A-Za-z0-9 .-]*$", max_length=40)
    architecture: str = Field(pattern=r"^[A-Za-z0-9_]+$")
    kind: Literal["chat", "base"]
    parameters: int = Field(ge=100_000, le=2_000_000_000_000)
    dtype: Literal["float32", "float16", "bfloat16"]
    context: int = Field(ge=256, le=10_000_000)
    license: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    description: str = Field(min_length=20, max_length=160)
    config_excerpt: dict[str, Any] = Field(alias="config")
    gated: bool = False
    chat_template: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9._-]*$")
    quantized: tuple[QuantizedVariant, ...] = ()
    checked: tuple[Fact, ...] = ()
    tags: tuple[Tag, ...] = ()

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        config = self.config
        if not (config.attention and config.feed_forward and config.vocabulary and config.hidden_size):
            raise ValueError(f"{self.id}: config does not say enough to plan memory (layers, heads, sizes)")
        if config.context is not None and config.context < self.context:
            raise ValueError(f"{self.id}: its config has a context of {config.context} tokens, not {self.context}")
        for field in ("quantized", "checked", "tags"):
            if len(set(getattr(self, field))) != len(getattr(self, field)):
                raise ValueError(f"{self.id}: {field} names something twice")
        return self

    @cached_property
    def config(self) -> ModelConfig:
        """The excerpt, read as any config.json is."""
        return read_config({"architectures": [self.architecture], **self.config_excerpt})

    @property
    def weight_bytes(self) -> int:
        """Size of the stored weights."""
        return self.parameters * DTYPE_BYTES[self.dtype]

    @cached_property
    def support(self) -> Support:
        """Whether the engine serves it."""
        return get_architectures().support_of(self.architecture)

    @cached_property
    def hardware(self) -> Machine | None:
        """The smallest machine that it runs well on; None where none of one device is large enough."""
        return smallest_machine(self)

    @property
    def unchecked(self) -> tuple[Fact, ...]:
        """Facts that nobody compared with published material."""
        stated: tuple[Fact, ...] = ("architecture", "parameters", "dtype", "context", "license", "gated")
        known = stated if not self.quantized else (*stated, "quantized")
        return tuple(fact for fact in known if fact not in self.checked)

    @cached_property
    def words(self) -> str:
        """Everything but the description that a search may find, in small letters."""
        variants = (f"{variant.id} {variant.method}" for variant in self.quantized)
        parts = (self.id, self.name, self.family, self.architecture, self.kind, *self.tags, *variants)
        return " ".join(parts).lower()
