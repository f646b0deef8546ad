"""What the API says of what happened."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict


class AuditEventView(BaseModel):
    """One event: who (``user:<id>``, ``key:<id>``, ``system:<part>``) did what to which object."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    at: datetime
    actor: str
    action: str
    object_type: str
    object_id: UUID | None
    message: str
    data: dict[str, Any]
