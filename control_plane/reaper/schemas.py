"""What the API says of providers and of what they have that no row wants."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict


class OrphanView(BaseModel):
    """Something of ours at a provider that no row wants. ``overdue``: its deletion takes longer than it should."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    provider: str
    name: str
    boot_token: str | None
    labels: dict[str, str]
    node: str | None
    state: str
    reason: str
    first_seen_at: datetime
    last_seen_at: datetime
    decision: str | None
    decided_by: str | None
    decided_at: datetime | None
    trouble: str | None
    gone_at: datetime | None
    overdue: bool = False
    adoptable: bool = False


class ProviderView(BaseModel):
    """One provider's list against our rows.

    ``checked_at`` is when it was last asked with success, ``age_s`` how long ago that is; ``error`` why it cannot be
    asked since ``error_since``; ``brake`` why nothing is deleted there automatically, since ``brake_since``.
    """

    name: str
    configured: bool
    checked_at: datetime | None
    age_s: float | None
    error: str | None
    error_since: datetime | None
    owned: int
    matched: int
    unmatched: int
    brake: str | None
    brake_since: datetime | None
    loss_confirmed_at: datetime | None


class OrphansView(BaseModel):
    """``GET /admin/orphans``."""

    items: list[OrphanView]
    providers: list[ProviderView]
