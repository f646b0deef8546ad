"""A database as the first release left it: rows in every phase and state, written without today's tables."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID, uuid5

import sqlalchemy as sa
from sqlalchemy import Connection

from control_plane.database import UTCDateTime

REVISION = "0001"
SECRET = "the root secret of a test"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
"""When these rows were last written; where the tests' clock stands."""

PHASES = (
    *("requested", "downloading", "provisioning", "starting", "running", "sleeping"),
    *("failed", "stopping", "stopped", "terminating", "terminated"),
)
STARTED = ("starting", "running", "sleeping", "failed", "stopping", "terminating")
"""Phases in which the provider has, or may have, an engine."""
RESTING = ("sleeping", "stopped", "terminated")
"""Phases in which nothing is due."""
DOWNLOAD_STATES = ("queued", "downloading", "verifying", "done", "failed", "cancelled")

API_KEY = "sk-slip-abcdefghijklmnopqrstuvwxyz234567qtfstm"
"""32 characters and their checksum."""
SESSION_TOKEN = "the-cookie-of-a-browser-that-was-signed-in"

_TYPES: Mapping[type, Any] = {
    UUID: sa.Uuid(),
    datetime: UTCDateTime(),
    dict: sa.JSON(),
    bool: sa.Boolean(),
    int: sa.BigInteger(),
    float: sa.Float(),
    str: sa.String(),
}

Rows = dict[str, list[dict[str, Any]]]


def id_of(what: str) -> UUID:
    """The same id for the same words."""
    return uuid5(UUID(int=0), what)


@cache
def rows() -> Rows:
    """Every row by table, in an order in which foreign keys find what they point at."""
    team, user = id_of("team"), id_of("user")
    return {
        "team": [{"id": team, "name": "default", "created_at": NOW}],
        "user": [_user(user)],
        "membership": [{"id": id_of("membership"), "user_id": user, "team_id": team, "role": "admin"}],
        "api_key": [_api_key("working", _hmac("api-key", API_KEY)), _api_key("revoked", "00" * 32, revoked_at=NOW)],
        "web_session": [
            {
                "id": id_of("session"),
                "user_id": user,
                "token_hmac": _hmac("session", SESSION_TOKEN),
                "created_at": NOW,
                "expires_at": NOW + timedelta(days=7),
            }
        ],
        "setup_token": [{"id": id_of("setup"), "token_hmac": "11" * 32, "created_at": NOW, "used_at": NOW}],
        "login_failure": [{"id": id_of("failure"), "email": "eve@example.org", "address": "192.0.2.9", "at": NOW}],
        "download": [_download(state) for state in DOWNLOAD_STATES],
        "download_file": [_download_file(state) for state in DOWNLOAD_STATES],
        "instance": [_instance(phase) for phase in PHASES],
        "replica": [_replica(phase) for phase in STARTED],
        "audit_event": [_event(phase) for phase in PHASES],
    }


def insert(connection: Connection, content: Rows) -> None:
    """Write rows; a column that a row does not name is NULL."""
    for table, lines in content.items():
        for values in lines:
            kinds = {name: _TYPES[type(value)] for name, value in values.items() if value is not None}
            columns = [sa.column(name, kinds.get(name)) for name in values]
            connection.execute(sa.table(table, *columns).insert().values(values))


def read(connection: Connection, content: Rows) -> Rows:
    """The same columns of the same tables as they are now, in the order of ``content``."""
    return {table: [_read(connection, table, values) for values in lines] for table, lines in content.items()}


def _read(connection: Connection, table: str, values: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {name: _TYPES[type(value)] for name, value in values.items() if value is not None}
    columns = [sa.column(name, kinds.get(name)) for name in values]
    key = sa.column("id", sa.Uuid())
    query = sa.select(*columns).select_from(sa.table(table, key)).where(key == values["id"])
    return dict(connection.execute(query).mappings().one())


def _hmac(purpose: str, value: str) -> str:
    return hmac.new(SECRET.encode(), f"{purpose}:{value}".encode(), hashlib.sha256).hexdigest()


def _user(user: UUID) -> dict[str, Any]:
    return {
        "id": user,
        "email": "grace@example.org",
        "name": "Grace",
        "password_hash": "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$aGFzaGhhc2g",
        "is_admin": True,
        "created_at": NOW,
        "disabled_at": None,
    }


def _api_key(name: str, digest: str, revoked_at: datetime | None = None) -> dict[str, Any]:
    return {
        "id": id_of(f"key {name}"),
        "team_id": id_of("team"),
        "user_id": id_of("user"),
        "name": name,
        "prefix": API_KEY[:12],
        "key_hmac": digest,
        "created_at": NOW,
        "expires_at": None,
        "last_used_at": None,
        "revoked_at": revoked_at,
    }


def _download(state: str) -> dict[str, Any]:
    over = state in {"done", "failed", "cancelled"}
    return {
        "id": id_of(f"download {state}"),
        "endpoint": "http://hub.invalid",
        "model": f"org/{state}",
        "commit_sha": "c" * 40,
        "path": "/models/snapshot" if state == "done" else None,
        "state": state,
        "reason": "the hub said 404" if state == "failed" else None,
        "next_step": None,
        "cancel_requested": state == "cancelled",
        "bytes_done": 1 << 33 if state != "queued" else 0,
        "bytes_total": 1 << 34,
        "bytes_per_s": 1.5e6 if state == "downloading" else 0.0,
        "progress_at": None if state == "queued" else NOW,
        "attempts": 1,
        "next_attempt_at": None if over else NOW,
        "lease_owner": "host:1" if state == "downloading" else None,
        "lease_token": id_of("a dead worker's lease") if state == "downloading" else None,
        "lease_expires_at": NOW if state == "downloading" else None,
        "created_at": NOW,
        "queued_at": NOW,
        "started_at": NOW,
        "finished_at": NOW if over else None,
    }


def _download_file(state: str) -> dict[str, Any]:
    return {
        "id": id_of(f"file {state}"),
        "download_id": id_of(f"download {state}"),
        "path": "model.safetensors",
        "etag": "e" * 40,
        "sha256": "5" * 64,
        "bytes_total": 1 << 34,
        "bytes_done": 1 << 33,
        "state": state,
    }


def _instance(phase: str) -> dict[str, Any]:
    wanted = {"stopping": "stopped", "stopped": "stopped", "terminating": "terminated", "terminated": "terminated"}
    waits = phase == "downloading"
    return {
        "id": id_of(f"instance {phase}"),
        "team_id": id_of("team"),
        "created_by": id_of("user"),
        "name": phase,
        "slug": f"{phase}-1a2b3c",
        # Slipway's own model has its weights with it; the one that waits for a download has another.
        "model": "org/downloading" if waits else "slipway/starter",
        "revision": "main",
        "commit_sha": "c" * 40 if waits else None,
        "download_id": id_of("download downloading") if waits else None,
        "hardware": "fake-cpu",
        "provider": "fake",
        "quantization": "auto",
        "engine": {"max_model_len": 512},
        "replica_count": 1,
        "phase": phase,
        "desired": wanted.get(phase, "running"),
        "reason": f"it was {phase}",
        "next_step": None,
        "since": NOW - timedelta(minutes=5),
        "next_attempt_at": None if phase in RESTING else NOW,
        "attempts": 0,
        "lease_owner": "host:1" if phase == "starting" else None,
        "lease_token": id_of("another dead worker's lease") if phase == "starting" else None,
        "lease_expires_at": NOW - timedelta(minutes=1) if phase == "starting" else None,
        "price_per_hour": 3.6,
        "cost_accrued": 1.25,
        "billing_since": NOW - timedelta(minutes=5) if phase in {"starting", "running", "stopping"} else None,
        "idempotency_key": f"key of {phase}",
        "request_digest": "d" * 64,
        "created_at": NOW - timedelta(minutes=10),
        "terminated_at": NOW if phase == "terminated" else None,
    }


def _replica(phase: str) -> dict[str, Any]:
    instance, ready = id_of(f"instance {phase}"), phase in {"running", "sleeping"}
    return {
        "id": id_of(f"replica {phase}"),
        "instance_id": instance,
        "ordinal": 0,
        "provider": "fake",
        "resource_name": f"slipway-{instance.hex}-0",
        "boot_token": f"boot of {phase}",
        "url": "http://engine.invalid/1" if ready else None,
        "ready": ready,
        "condition": None,
        "restarts": 5 if phase == "failed" else 0,
        "restart_at": None,
        "last_exit_code": -9 if phase == "failed" else None,
        "absent_count": 0,
        "created_at": NOW - timedelta(minutes=9),
        "started_at": NOW - timedelta(minutes=8),
        "ready_at": NOW - timedelta(minutes=7) if ready else None,
        "last_seen_at": NOW,
    }


def _event(phase: str) -> dict[str, Any]:
    return {
        "id": id_of(f"event {phase}"),
        "at": NOW,
        "team_id": id_of("team"),
        "actor": "system:reconciler",
        "action": f"instance.{phase}",
        "object_type": "instance",
        "object_id": id_of(f"instance {phase}"),
        "message": f"it was {phase}",
        "data": {"to": phase},
    }
