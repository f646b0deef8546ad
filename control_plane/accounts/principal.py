"""Who is asking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID


@dataclass(frozen=True)
class Principal:
    """An authenticated caller, acting for one team.

    ``actor`` is what audit events carry: ``user:<id>`` or ``key:<id>``.
    """

    user_id: UUID
    team_id: UUID
    name: str
    is_admin: bool
    via: Literal["session", "key"]
    actor: str
