"""Replicas of several generations, devices and limits of an instance, downloads onto a provider's own storage.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import control_plane.database

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TIME = control_plane.database.UTCDateTime(timezone=True)


def _columns() -> dict[str, list[sa.Column[object]]]:
    """Added columns by table; the server defaults are for the rows that are there already."""
    return {
        "instance": [
            sa.Column("accelerator_count", sa.Integer(), nullable=False, server_default="0"),
            sa.Column("memory_bytes", sa.BigInteger(), nullable=False, server_default="0"),
            sa.Column("limits", sa.JSON(), nullable=False, server_default="{}"),
            sa.Column("generation", sa.Integer(), nullable=False, server_default="0"),
        ],
        "replica": [
            sa.Column("generation", sa.Integer(), nullable=False, server_default="0"),
            sa.Column("retiring_since", _TIME, nullable=True),
            sa.Column("node", sa.String(length=255), nullable=True),
            sa.Column("silent_s", sa.Float(), nullable=False, server_default="0"),
            sa.Column("looked_at", _TIME, nullable=True),
        ],
        "download": [
            sa.Column("location", sa.String(length=255), nullable=False, server_default=""),
            sa.Column("provider", sa.String(length=32), nullable=True),
            sa.Column("hardware", sa.String(length=100), nullable=True),
            sa.Column("boot_token", sa.String(length=64), nullable=True),
        ],
    }


def upgrade() -> None:
    for table, columns in _columns().items():
        with op.batch_alter_table(table, schema=None) as batch_op:
            for column in columns:
                batch_op.add_column(column)
    with op.batch_alter_table("download", schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f("uq_download_endpoint"), type_="unique")
        batch_op.create_unique_constraint(
            batch_op.f("uq_download_endpoint"), ["endpoint", "model", "commit_sha", "location"]
        )


def downgrade() -> None:
    # What lies on a provider's own storage cannot be told from what is here any more.
    op.execute(
        "UPDATE instance SET download_id = NULL WHERE download_id IN (SELECT id FROM download WHERE location <> '')"
    )
    op.execute("DELETE FROM download_file WHERE download_id IN (SELECT id FROM download WHERE location <> '')")
    op.execute("DELETE FROM download WHERE location <> ''")
    with op.batch_alter_table("download", schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f("uq_download_endpoint"), type_="unique")
        batch_op.create_unique_constraint(batch_op.f("uq_download_endpoint"), ["endpoint", "model", "commit_sha"])
    for table, columns in _columns().items():
        with op.batch_alter_table(table, schema=None) as batch_op:
            for column in reversed(columns):
                batch_op.drop_column(column.name)
