"""What providers have against what we know of it; signs of life of our own processes.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import control_plane.database

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TIME = control_plane.database.UTCDateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "provider_check",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("provider", sa.String(length=32), nullable=False),
        sa.Column("last_listed_at", _TIME, nullable=True),
        sa.Column("last_error", sa.String(length=2000), nullable=True),
        sa.Column("error_since", _TIME, nullable=True),
        sa.Column("owned", sa.Integer(), nullable=False),
        sa.Column("matched", sa.Integer(), nullable=False),
        sa.Column("unmatched", sa.Integer(), nullable=False),
        sa.Column("brake_since", _TIME, nullable=True),
        sa.Column("brake_reason", sa.String(length=500), nullable=True),
        sa.Column("loss_confirmed_at", _TIME, nullable=True),
        sa.Column("next_attempt_at", _TIME, nullable=False),
        sa.Column("lease_owner", sa.String(length=100), nullable=True),
        sa.Column("lease_token", sa.Uuid(), nullable=True),
        sa.Column("lease_expires_at", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_provider_check")),
        sa.UniqueConstraint("provider", name=op.f("uq_provider_check_provider")),
    )
    op.create_table(
        "orphan",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("provider", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("boot_token", sa.String(length=64), nullable=True),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("node", sa.String(length=255), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.String(length=2000), nullable=False),
        sa.Column("first_seen_at", _TIME, nullable=False),
        sa.Column("last_seen_at", _TIME, nullable=False),
        sa.Column("decision", sa.String(length=20), nullable=True),
        sa.Column("decided_by", sa.String(length=64), nullable=True),
        sa.Column("decided_at", _TIME, nullable=True),
        sa.Column("trouble", sa.String(length=2000), nullable=True),
        sa.Column("absent_count", sa.Integer(), nullable=False),
        sa.Column("gone_at", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orphan")),
        sa.UniqueConstraint("provider", "name", name=op.f("uq_orphan_provider")),
    )
    op.create_index(op.f("ix_orphan_state"), "orphan", ["state"], unique=False)
    op.create_table(
        "process_heartbeat",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(length=40), nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("seen_at", _TIME, nullable=False),
        sa.Column("last_task_at", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_process_heartbeat")),
        sa.UniqueConstraint("name", name=op.f("uq_process_heartbeat_name")),
    )
    op.create_index(op.f("ix_process_heartbeat_seen_at"), "process_heartbeat", ["seen_at"], unique=False)


def downgrade() -> None:
    for table in ("process_heartbeat", "orphan", "provider_check"):
        op.drop_table(table)
