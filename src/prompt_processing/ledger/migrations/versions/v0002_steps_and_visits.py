"""Steps, visits as a whole, errors of attempts, and since when a detector-visit is free."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add tables and columns, and fill them for what is there."""
    op.create_table(
        "visits",
        sa.Column("instrument", sa.String(64), primary_key=True),
        sa.Column("group", sa.String(256), primary_key=True),
        sa.Column("heard_of_at", sa.Float(53), nullable=False),
        sa.Column("cancelled_at", sa.Float(53)),
    )
    op.create_table(
        "steps",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("detector_visit_id", _ID, nullable=False),
        sa.Column("step", sa.String(64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("completed_at", sa.Float(53), nullable=False),
        sa.UniqueConstraint("detector_visit_id", "step"),
        sa.ForeignKeyConstraint(
            ["detector_visit_id", "attempt"], ["attempts.detector_visit_id", "attempts.attempt"]
        ),
    )
    with op.batch_alter_table("detector_visits") as detector_visits:
        detector_visits.add_column(sa.Column("freed_at", sa.Float(53)))
    with op.batch_alter_table("attempts") as attempts:
        attempts.add_column(sa.Column("error", sa.Text()))
    op.execute(
        'INSERT INTO visits (instrument, "group", heard_of_at) '
        'SELECT instrument, "group", min(first_claimed_at) FROM detector_visits GROUP BY instrument, "group"'
    )
    # Where no claim is open, the last attempt has ended.
    op.execute(
        "UPDATE detector_visits SET freed_at = coalesce("
        "(SELECT max(ended_at) FROM attempts WHERE attempts.detector_visit_id = detector_visits.id), "
        "first_claimed_at) WHERE token IS NULL"
    )
