"""What Alembic runs around the scripts: they work in the transaction of `prompt_processing.ledger.schema`."""

from alembic import context

from prompt_processing.ledger.schema import VERSION_TABLE
from prompt_processing.ledger.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=VERSION_TABLE,
    # SQLite cannot change a column in place: the table is copied.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
