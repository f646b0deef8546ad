"""What crosses the API about instances."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from control_plane.downloads.schemas import DownloadProgress
from control_plane.instances.lifecycle import Phase


class ReplicaCount(BaseModel):
    """How many engines serve the instance. ``min`` and ``max`` must be equal until autoscaling is there."""

    model_config = ConfigDict(extra="forbid")

    min: int = Field(default=1, ge=1, le=16)
    max: int = Field(default=1, ge=1, le=16)


class EngineOptions(BaseModel):
    """Options of ``slipway-serve`` that a user may set; unset means the engine's own default."""

    model_config = ConfigDict(extra="forbid")

    max_model_len: int | None = Field(default=None, ge=16)
    max_num_seqs: int | None = Field(default=None, ge=1, le=4096)
    max_num_batched_tokens: int | None = Field(default=None, ge=16)
    kv_cache_memory: int | None = Field(default=None, ge=1 << 20, description="bytes")
    dtype: str | None = Field(default=None, pattern="^(auto|float32|bfloat16|float16)$")


class ResourceLimits(BaseModel):
    """What one replica may use at most; unset means the provider's own default."""

    model_config = ConfigDict(extra="forbid")

    cpus: float | None = Field(default=None, gt=0, le=1024)
    memory_bytes: int | None = Field(default=None, ge=64 << 20)


class LaunchRequest(BaseModel):
    """``POST /instances``."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(max_length=200)
    name: str | None = Field(default=None, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")
    revision: str = Field(default="main", max_length=200)
    hardware: str | None = Field(default=None, max_length=100)
    quantization: str = Field(default="auto", pattern="^(auto|none)$")
    engine: EngineOptions = EngineOptions()
    replicas: ReplicaCount = ReplicaCount()
    limits: ResourceLimits = ResourceLimits()


class InstanceUpdate(BaseModel):
    """``PATCH /instances/{id}``; what is left out stays. ``engine`` replaces all engine options."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(default=None, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")
    engine: EngineOptions | None = None
    replicas: ReplicaCount | None = None


class RestartMode(StrEnum):
    """How engines are replaced: one after another, so that no request is dropped, or all at once."""

    ROLLING = "rolling"
    REPLACE = "replace"


class RestartRequest(BaseModel):
    """``POST /instances/{id}/restart``; the body may be left out."""

    model_config = ConfigDict(extra="forbid")

    mode: RestartMode = RestartMode.ROLLING


class ReplicaView(BaseModel):
    """One engine of an instance."""

    id: UUID
    ordinal: int
    provider: str
    url: str | None
    ready: bool
    condition: str | None
    #: The generation of the instance that it was made for; an earlier one is to be replaced.
    generation: int
    #: It gets no more requests since then, and goes when it has answered those it has.
    retiring_since: datetime | None
    node: str | None
    restarts: int
    #: It crashed so often that it is not started again by itself.
    given_up: bool
    last_exit_code: int | None
    ready_at: datetime | None


class InstanceView(BaseModel):
    """An instance as the API shows it. Money in US dollars."""

    id: UUID
    name: str
    slug: str
    model: str
    revision: str
    commit_sha: str | None
    phase: Phase | str
    reason: str
    next_step: str | None
    since: datetime
    next_attempt_at: datetime | None
    desired: str
    hardware: str | None
    accelerator_count: int
    limits: ResourceLimits
    #: Replicas that are wanted; there is one more while engines are replaced.
    replica_count: int
    generation: int
    quantization: str
    engine: dict[str, Any]
    api_url: str
    direct_url: str | None
    replicas: list[ReplicaView]
    download: DownloadProgress | None
    eta_s: float | None
    price_per_hour: float
    cost_so_far: float
    created_at: datetime
    terminated_at: datetime | None


class DirectAccess(BaseModel):
    """Address and key of an engine itself."""

    direct_url: str
    api_key: str


class LogView(BaseModel):
    """A piece of a replica's log; ``next_offset`` (bytes since the log's beginning) is where reading goes on."""

    replica: int
    text: str
    next_offset: int


class EngineFigures(BaseModel):
    """What an instance's engines are doing, summed over replicas; ``kv_cache_usage`` is the mean, 1 is full."""

    replicas_answering: int
    requests_running: int
    requests_waiting: int
    kv_cache_usage: float
    prompt_tokens: int
    generation_tokens: int


class EventView(BaseModel):
    """One line of an instance's timeline."""

    id: UUID
    at: datetime
    actor: str
    action: str
    message: str
    data: dict[str, Any]
