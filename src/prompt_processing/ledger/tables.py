"""Tables of the SQL ledger."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

METADATA: Final = MetaData()
"""A change of these tables needs a new script in `migrations.versions`."""

# SQLite numbers rows by itself only for INTEGER.
_Id: Final = BigInteger().with_variant(Integer, "sqlite")

VISITS: Final = Table(
    "visits",
    METADATA,
    Column("instrument", String(64), primary_key=True),
    Column("group", String(256), primary_key=True),
    Column("heard_of_at", Float(53), nullable=False),
    Column("cancelled_at", Float(53)),
)

DETECTOR_VISITS: Final = Table(
    "detector_visits",
    METADATA,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("instrument", String(64), nullable=False),
    Column("group", String(256), nullable=False),
    Column("detector", Integer, nullable=False),
    Column("message_id", String(256), nullable=False),
    Column("body", Text, nullable=False),
    Column("first_claimed_at", Float(53), nullable=False),
    # The open claim; all null when there is none.
    Column("attempt", Integer, nullable=False),
    Column("token", String(64)),
    Column("owner", String(256)),
    Column("claim_message_id", String(256)),
    Column("lease_until", Float(53)),
    # When the last claim ended, or the outcome was made history; null before.
    Column("freed_at", Float(53)),
    Column("day_obs", Integer, nullable=False),
    # Of the decision; null before, and for decisions from before these columns.
    Column("visit_id", BigInteger),
    Column("n_alerts", Integer),
    # Of the current outcome, so that a night is counted, and unfinished rows are found, without a join.
    Column("status", String(16)),
    Column("reason", String(64)),
    UniqueConstraint("instrument", "group", "detector"),
    Index("detector_visits_group", "group"),
    Index("detector_visits_night", "day_obs", "id"),
    Index("detector_visits_summary", "day_obs", "status", "reason", "n_alerts"),
)
Index(
    "detector_visits_unfinished",
    DETECTOR_VISITS.c.id,
    sqlite_where=DETECTOR_VISITS.c.status.is_(None),
    postgresql_where=DETECTOR_VISITS.c.status.is_(None),
)

ATTEMPTS: Final = Table(
    "attempts",
    METADATA,
    Column("detector_visit_id", _Id, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("owner", String(256), nullable=False),
    Column("token", String(64), nullable=False),
    Column("message_id", String(256), nullable=False),
    Column("started_at", Float(53), nullable=False),
    Column("ended_at", Float(53)),
    Column("latency", Float(53)),
    Column("error", Text),
    ForeignKeyConstraint(["detector_visit_id"], ["detector_visits.id"]),
)

STAGE_TIMES: Final = Table(
    "stage_times",
    METADATA,
    Column("detector_visit_id", _Id, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("stage", String(128), nullable=False),
    Column("seconds", Float(53), nullable=False),
    ForeignKeyConstraint(
        ["detector_visit_id", "attempt"], ["attempts.detector_visit_id", "attempts.attempt"]
    ),
)

STEPS: Final = Table(
    "steps",
    METADATA,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("detector_visit_id", _Id, nullable=False),
    Column("step", String(64), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("completed_at", Float(53), nullable=False),
    UniqueConstraint("detector_visit_id", "step"),
    ForeignKeyConstraint(
        ["detector_visit_id", "attempt"], ["attempts.detector_visit_id", "attempts.attempt"]
    ),
)

OUTCOMES: Final = Table(
    "outcomes",
    METADATA,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("detector_visit_id", _Id, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("reason", String(64)),
    Column("detail", Text, nullable=False),
    Column("flags", Text, nullable=False),
    Column("recorded_at", Float(53), nullable=False),
    Column("current", Boolean, nullable=False),
    ForeignKeyConstraint(
        ["detector_visit_id", "attempt"], ["attempts.detector_visit_id", "attempts.attempt"]
    ),
)
# The database itself refuses a second current outcome.
Index(
    "one_current_outcome",
    OUTCOMES.c.detector_visit_id,
    unique=True,
    sqlite_where=OUTCOMES.c.current.is_(True),
    postgresql_where=OUTCOMES.c.current.is_(True),
)

PENDING_EFFECTS: Final = Table(
    "pending_effects",
    METADATA,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("detector_visit_id", _Id, nullable=False),
    Column("effect", String(64), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("payload", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("since", Float(53), nullable=False),
    # How often a relay has taken it: also the proof that the last one to take it is this one.
    Column("tries", Integer, nullable=False),
    Column("due_at", Float(53), nullable=False),
    Column("lease_until", Float(53), nullable=False),
    UniqueConstraint("detector_visit_id", "effect"),
    ForeignKeyConstraint(
        ["detector_visit_id", "attempt"], ["attempts.detector_visit_id", "attempts.attempt"]
    ),
    Index("pending_effects_due", "due_at"),
)

ARRIVALS: Final = Table(
    "arrivals",
    METADATA,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("key", String(512), nullable=False, unique=True),
    Column("instrument", String(64), nullable=False),
    Column("group", String(256), nullable=False),
    Column("detector", Integer, nullable=False),
    Column("snap", Integer, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("exposure_id", BigInteger, nullable=False),
    Column("obs_id", String(128), nullable=False),
    Column("arrived_at", String(40), nullable=False),
    Index("arrivals_visit", "instrument", "group", "detector"),
)
