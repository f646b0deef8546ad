"""What crosses the API about accounts. Passwords and tokens are SecretStr, so that no log or error shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SecretStr


class SetupRequest(BaseModel):
    """``POST /setup``."""

    model_config = ConfigDict(extra="forbid")

    token: SecretStr = Field(max_length=200)
    email: str = Field(max_length=320)
    name: str = Field(default="", max_length=100)
    password: SecretStr


class LoginRequest(BaseModel):
    """``POST /auth/login``."""

    model_config = ConfigDict(extra="forbid")

    email: str = Field(max_length=320)
    password: SecretStr = Field(max_length=1024)


class TeamView(BaseModel):
    """A team by name."""

    id: UUID
    name: str


class Me(BaseModel):
    """Who is asking. ``csrf_token`` is there for web sessions only: keys need none."""

    user_id: UUID
    email: str
    name: str
    is_admin: bool
    team: TeamView
    via: Literal["session", "key"]
    csrf_token: str | None


class KeyCreate(BaseModel):
    """``POST /keys``."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=100)
    expires_at: AwareDatetime | None = None


class KeyView(BaseModel):
    """A key as lists show it. ``last_used_at`` is exact to a minute."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    prefix: str
    user_id: UUID
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class NewKey(KeyView):
    """A key just made: ``key`` is shown this once."""

    key: str


class UserView(BaseModel):
    """A member of the team."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    email: str
    name: str
    is_admin: bool
    created_at: datetime
    disabled_at: datetime | None
