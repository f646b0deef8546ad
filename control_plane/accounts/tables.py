"""Who may do what: users, their teams, sessions, API keys. No secret is stored, only an HMAC of it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Column, UniqueConstraint
from sqlmodel import Field, SQLModel

from control_plane.database import UTCDateTime
from control_plane.ids import new_id


class Role(StrEnum):
    """What a member may do in a team. Stored as text, so that an unknown value of a newer version survives."""

    ADMIN = "admin"
    MEMBER = "member"


class Team(SQLModel, table=True):
    """Owns instances and keys. Another team's object does not exist for you."""

    __tablename__ = "team"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    name: str = Field(max_length=100, unique=True)
    created_at: datetime = Field(sa_column=Column(UTCDateTime(), nullable=False))


class User(SQLModel, table=True):
    """A person, or the machine's own operator account, which has no password and cannot sign in."""

    __tablename__ = "user"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    email: str = Field(max_length=320, unique=True)
    name: str = Field(max_length=100)
    password_hash: str | None = Field(default=None, max_length=255)
    is_admin: bool = False
    created_at: datetime = Field(sa_column=Column(UTCDateTime(), nullable=False))
    disabled_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime()))


class Membership(SQLModel, table=True):
    """A user in a team."""

    __tablename__ = "membership"
    __table_args__ = (UniqueConstraint("user_id", "team_id"),)

    id: UUID = Field(default_factory=new_id, primary_key=True)
    user_id: UUID = Field(foreign_key="user.id", index=True)
    team_id: UUID = Field(foreign_key="team.id", index=True)
    role: str = Field(default=Role.MEMBER, max_length=20)


class ApiKey(SQLModel, table=True):
    """A bearer key. ``prefix`` (first characters) is what people recognise it by; the key itself is shown once."""

    __tablename__ = "api_key"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    team_id: UUID = Field(foreign_key="team.id", index=True)
    user_id: UUID = Field(foreign_key="user.id", index=True)
    name: str = Field(max_length=100)
    prefix: str = Field(max_length=20)
    key_hmac: str = Field(max_length=64, unique=True)
    created_at: datetime = Field(sa_column=Column(UTCDateTime(), nullable=False))
    expires_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime()))
    last_used_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime()))
    revoked_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime()))


class WebSession(SQLModel, table=True):
    """A signed-in browser."""

    __tablename__ = "web_session"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    user_id: UUID = Field(foreign_key="user.id", index=True)
    token_hmac: str = Field(max_length=64, unique=True)
    created_at: datetime = Field(sa_column=Column(UTCDateTime(), nullable=False))
    expires_at: datetime = Field(sa_column=Column(UTCDateTime(), nullable=False))


class SetupToken(SQLModel, table=True):
    """The one-time right to become the first administrator."""

    __tablename__ = "setup_token"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    token_hmac: str = Field(max_length=64, unique=True)
    created_at: datetime = Field(sa_column=Column(UTCDateTime(), nullable=False))
    used_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime()))


class LoginFailure(SQLModel, table=True):
    """A failed sign-in, kept to slow down guessing."""

    __tablename__ = "login_failure"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    email: str = Field(max_length=320, index=True)
    address: str = Field(max_length=64, index=True)
    at: datetime = Field(sa_column=Column(UTCDateTime(), nullable=False))
