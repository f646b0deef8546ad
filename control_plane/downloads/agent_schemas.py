"""What crosses between the control plane and a download agent, as the control plane sees it.

The agent's side is ``control_plane/agent/protocol.py``.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from control_plane.downloads.states import DownloadState

#: A terabyte is 2⁴⁰; nothing here is larger than 2⁵⁰.
_Bytes = Annotated[int, Field(ge=0, le=1 << 50)]
#: The largest report: 10,000 files of a long path each.
LARGEST_REPORT_BYTES = 4 << 20


class AgentFile(BaseModel):
    """A file to fetch; ``size`` in bytes, ``etag`` its checksum as the hub has it."""

    path: str
    size: int
    etag: str
    sha256: str | None


class AgentJob(BaseModel):
    """What an agent is to fetch. ``hub_token`` is there where the hub is the one that HF_TOKEN is for."""

    endpoint: str
    model: str
    commit_sha: str
    files: list[AgentFile]
    hub_token: str | None
    offline: bool
    revisions: list[str]


class AgentFileProgress(BaseModel):
    """One file's bytes on disk, and its state."""

    model_config = ConfigDict(extra="forbid")

    bytes_done: _Bytes
    state: DownloadState


class AgentEnd(BaseModel):
    """How it ended; see ``control_plane.agent.protocol.End``."""

    model_config = ConfigDict(extra="forbid")

    path: str | None = Field(default=None, max_length=4096)
    reason: str | None = Field(default=None, max_length=2000)
    next_step: str | None = Field(default=None, max_length=2000)
    transient: bool = False
    retry_after_s: float | None = Field(default=None, ge=0, le=86400, allow_inf_nan=False)


class AgentReport(BaseModel):
    """Progress; ``files`` holds those that changed."""

    model_config = ConfigDict(extra="forbid")

    bytes_done: _Bytes
    bytes_per_s: float = Field(ge=0, allow_inf_nan=False)
    verifying: bool
    trouble: str | None = Field(default=None, max_length=2000)
    files: dict[str, AgentFileProgress] = Field(default_factory=dict, max_length=10_000)
    end: AgentEnd | None = None


class AgentReply(BaseModel):
    """``cancel``: stop, nobody wants it any more."""

    cancel: bool
