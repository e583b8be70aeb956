"""The tables before versions were kept."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "detector_visits",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("instrument", sa.String(64), nullable=False),
        sa.Column("group", sa.String(256), nullable=False),
        sa.Column("detector", sa.Integer(), nullable=False),
        sa.Column("message_id", sa.String(256), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("first_claimed_at", sa.Float(53), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("token", sa.String(64)),
        sa.Column("owner", sa.String(256)),
        sa.Column("claim_message_id", sa.String(256)),
        sa.Column("lease_until", sa.Float(53)),
        sa.UniqueConstraint("instrument", "group", "detector"),
    )
    op.create_table(
        "attempts",
        sa.Column("detector_visit_id", _ID, sa.ForeignKey("detector_visits.id"), primary_key=True),
        sa.Column("attempt", sa.Integer(), primary_key=True),
        sa.Column("owner", sa.String(256), nullable=False),
        sa.Column("token", sa.String(64), nullable=False),
        sa.Column("message_id", sa.String(256), nullable=False),
        sa.Column("started_at", sa.Float(53), nullable=False),
        sa.Column("ended_at", sa.Float(53)),
        sa.Column("latency", sa.Float(53)),
    )
    op.create_table(
        "stage_times",
        sa.Column("detector_visit_id", _ID, primary_key=True),
        sa.Column("attempt", sa.Integer(), primary_key=True),
        sa.Column("position", sa.Integer(), primary_key=True),
        sa.Column("stage", sa.String(128), nullable=False),
        sa.Column("seconds", sa.Float(53), nullable=False),
        _of_attempt(),
    )
    op.create_table(
        "outcomes",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("detector_visit_id", _ID, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(64)),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("flags", sa.Text(), nullable=False),
        sa.Column("recorded_at", sa.Float(53), nullable=False),
        sa.Column("current", sa.Boolean(), nullable=False),
        _of_attempt(),
    )
    op.create_index(
        "one_current_outcome",
        "outcomes",
        ["detector_visit_id"],
        unique=True,
        sqlite_where=sa.text("current IS 1"),
        postgresql_where=sa.text("current IS true"),
    )
    op.create_table(
        "arrivals",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("key", sa.String(512), nullable=False, unique=True),
        sa.Column("instrument", sa.String(64), nullable=False),
        sa.Column("group", sa.String(256), nullable=False),
        sa.Column("detector", sa.Integer(), nullable=False),
        sa.Column("snap", sa.Integer(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("exposure_id", sa.BigInteger(), nullable=False),
        sa.Column("obs_id", sa.String(128), nullable=False),
        sa.Column("arrived_at", sa.String(40), nullable=False),
    )
    op.create_index("arrivals_visit", "arrivals", ["instrument", "group", "detector"])


def _of_attempt() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["detector_visit_id", "attempt"], ["attempts.detector_visit_id", "attempts.attempt"]
    )
