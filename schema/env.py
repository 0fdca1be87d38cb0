"""Alembic's entry: the connection comes from `dims_worker.store.migrations`, the tables from its models."""

from alembic import context

from dims_worker.store.models import metadata
from dims_worker.store.revisions import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, version_table=VERSION_TABLE
)
with context.begin_transaction():
    context.run_migrations()
