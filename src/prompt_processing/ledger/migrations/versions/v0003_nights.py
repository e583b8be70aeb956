"""The night of each detector-visit, and what lists show of it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

# A day of observation ends at noon, 43200 s after midnight; times of the messages are TAI seconds.
_NIGHT = {
    "sqlite": "CAST(strftime('%Y%m%d', json_extract(body, '$.startTime') - 43200, 'unixepoch') AS INTEGER)",
    "postgresql": (
        "CAST(to_char(to_timestamp(CAST(CAST(body AS json) ->> 'startTime' AS DOUBLE PRECISION) - 43200) "
        "AT TIME ZONE 'UTC', 'YYYYMMDD') AS INTEGER)"
    ),
}


def upgrade() -> None:
    """Add columns and indexes, and fill them; how many alerts old detector-visits have stays unknown."""
    for column in (
        sa.Column("day_obs", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("visit_id", sa.BigInteger()),
        sa.Column("n_alerts", sa.Integer()),
        sa.Column("status", sa.String(16)),
        sa.Column("reason", sa.String(64)),
    ):
        op.add_column("detector_visits", column)
    op.execute(f"UPDATE detector_visits SET day_obs = {_NIGHT[op.get_bind().dialect.name]}")  # noqa: S608
    for name in ("status", "reason"):
        op.execute(
            f"UPDATE detector_visits SET {name} = (SELECT {name} FROM outcomes "  # noqa: S608 (constants)
            "WHERE outcomes.detector_visit_id = detector_visits.id AND outcomes.current IS TRUE)"
        )
    op.create_index("detector_visits_group", "detector_visits", ["group"])
    op.create_index("detector_visits_night", "detector_visits", ["day_obs", "id"])
    op.create_index("detector_visits_summary", "detector_visits", ["day_obs", "status", "reason", "n_alerts"])
    op.create_index(
        "detector_visits_unfinished",
        "detector_visits",
        ["id"],
        sqlite_where=sa.text("status IS NULL"),
        postgresql_where=sa.text("status IS NULL"),
    )
