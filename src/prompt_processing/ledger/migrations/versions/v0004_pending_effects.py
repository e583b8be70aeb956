"""Effects that were not possible when their visit was processed, and that a relay makes up for."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the table; an older program left nothing pending."""
    op.create_table(
        "pending_effects",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("detector_visit_id", _ID, nullable=False),
        sa.Column("effect", sa.String(64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("since", sa.Float(53), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.Float(53), nullable=False),
        sa.Column("lease_until", sa.Float(53), nullable=False),
        sa.UniqueConstraint("detector_visit_id", "effect"),
        sa.ForeignKeyConstraint(
            ["detector_visit_id", "attempt"], ["attempts.detector_visit_id", "attempts.attempt"]
        ),
    )
    op.create_index("pending_effects_due", "pending_effects", ["due_at"])
