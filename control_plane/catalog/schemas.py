"""What crosses the API about models. Sizes in bytes, context in tokens, money in US dollars."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from control_plane.catalog.catalog import Query
from control_plane.catalog.entry import CatalogEntry, Fact, QuantizedVariant
from control_plane.hub.architectures import Support
from control_plane.hub.facts import ModelFacts
from control_plane.sizing.memory import Fit


class ModelSearch(BaseModel):
    """``GET /models``: words to look for, and filters."""

    model_config = ConfigDict(extra="forbid")

    q: str = Field(default="", max_length=200)
    architecture: str | None = Field(default=None, max_length=100)
    family: str | None = Field(default=None, max_length=100)
    kind: Literal["chat", "base"] | None = None
    max_parameters: int | None = Field(default=None, ge=1)
    license: str | None = Field(default=None, max_length=100)
    gated: bool | None = None
    cursor: str | None = Field(default=None, max_length=200)
    limit: int = Field(default=200, ge=1, le=500)

    def query(self) -> Query:
        """What the catalog is asked."""
        return Query(**self.model_dump(exclude={"cursor", "limit"}))


class ModelView(BaseModel):
    """A catalog entry.

    ``hardware`` is the smallest machine that it runs well on, ``note`` what to know of how it is served, ``unchecked``
    lists the facts that were not compared with published material.
    """

    id: str
    name: str
    family: str
    architecture: str
    kind: str
    parameters: int
    weight_bytes: int
    dtype: str
    context: int
    license: str
    gated: bool
    hardware: str | None
    quantized: list[QuantizedVariant]
    chat_template: str | None
    unchecked: list[Fact]
    tags: list[str]
    description: str
    supported: bool
    why_not: str | None
    note: str | None

    @classmethod
    def of(cls, entry: CatalogEntry) -> ModelView:
        """The view of ``entry``."""
        return cls(
            id=entry.id,
            name=entry.name,
            family=entry.family,
            architecture=entry.architecture,
            kind=entry.kind,
            parameters=entry.parameters,
            weight_bytes=entry.weight_bytes,
            dtype=entry.dtype,
            context=entry.context,
            license=entry.license,
            gated=entry.gated,
            hardware=entry.hardware.name if entry.hardware else None,
            quantized=list(entry.quantized),
            chat_template=entry.chat_template,
            unchecked=list(entry.unchecked),
            tags=list(entry.tags),
            description=entry.description,
            supported=entry.support.supported,
            why_not=entry.support.why_not,
            note=entry.support.note,
        )


class ResolveRequest(BaseModel):
    """``POST /models/resolve``."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(max_length=200, description="organisation/name on the hub, or starter")
    revision: str = Field(default="main", max_length=200)
    quantization: str = Field(default="auto", pattern="^(auto|none)$")
    max_model_len: int | None = Field(
        default=None, ge=16, le=100_000_000, description="tokens; the model's own if null"
    )
    concurrency: int = Field(default=1, ge=1, le=4096, description="requests of that length that must fit at once")


class QuantizationView(BaseModel):
    """How the weights are compressed."""

    model_config = ConfigDict(from_attributes=True)

    method: str
    bits: int | None


class MemoryView(BaseModel):
    """Bytes by part; ``kv_cache`` for the asked concurrency at the planned context."""

    model_config = ConfigDict(from_attributes=True)

    weights: int
    kv_cache: int
    activations: int
    overhead: int
    total: int


class FitView(BaseModel):
    """One hardware offer. ``available``: whether it can be had now; ``fits``: whether the model would run on it."""

    hardware: str
    provider: str
    name: str
    accelerator: str
    accelerator_count: int
    memory_bytes: int
    price_per_hour: float
    available: bool
    why_unavailable: str | None
    fits: bool
    why_not: str | None
    memory: MemoryView | None
    max_model_len: int | None
    max_sequences: int

    @classmethod
    def of(cls, fit: Fit) -> FitView:
        """The view of ``fit``."""
        return cls(
            hardware=fit.offer.id,
            provider=fit.offer.provider,
            name=fit.offer.name,
            accelerator=fit.offer.accelerator,
            accelerator_count=fit.accelerator_count or fit.offer.accelerator_count,
            memory_bytes=fit.offer.memory_bytes,
            price_per_hour=fit.price_per_hour,
            available=fit.offer.available,
            why_unavailable=fit.offer.why_unavailable,
            fits=fit.fits,
            why_not=fit.why_not,
            memory=MemoryView.model_validate(fit.memory) if fit.memory else None,
            max_model_len=fit.max_model_len,
            max_sequences=fit.max_sequences,
        )


class Resolution(BaseModel):
    """Facts of a model at a pinned commit, whether it can be launched, and on what.

    ``weight_bytes`` counts the weights alone, ``total_bytes`` every file that a launch fetches. ``note`` is what to
    know of how it is served.
    """

    model: str
    revision: str
    commit_sha: str
    architecture: str | None
    family: str | None
    parameters: int | None
    weight_bytes: int
    total_bytes: int
    context: int | None
    dtype: str | None
    quantization: QuantizationView | None
    license: str | None
    gated: bool
    has_chat_template: bool
    custom_code: bool
    supported: bool
    why_not: str | None
    note: str | None
    fits: list[FitView]

    @classmethod
    def of(cls, facts: ModelFacts, revision: str, *, total_bytes: int, support: Support, fits: list[Fit]) -> Resolution:
        """The view of ``facts`` and what follows from them."""
        config = facts.config
        return cls(
            model=facts.id,
            revision=revision,
            commit_sha=facts.sha,
            architecture=config.architecture,
            family=config.family,
            parameters=facts.parameters,
            weight_bytes=facts.weight_bytes,
            total_bytes=total_bytes,
            context=config.context,
            dtype=facts.dtype,
            quantization=QuantizationView.model_validate(config.quantization) if config.quantization else None,
            license=facts.license,
            gated=facts.gated,
            has_chat_template=facts.has_chat_template,
            custom_code=config.custom_code,
            supported=support.supported,
            why_not=support.why_not,
            note=support.note,
            fits=[FitView.of(fit) for fit in fits],
        )
