"""Alembic's entry: takes DATABASE_URL from the environment, so that no `%` in it is interpreted."""

import logging
import os

from alembic import context
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from sample_app import logs
from sample_app.config import ConfigError
from sample_app.models import Base

url = os.environ.get("DATABASE_URL", "").strip()
if not url:
    raise ConfigError("DATABASE_URL is not set")

if context.is_offline_mode():
    context.configure(url=url, target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    if not logging.getLogger().handlers:
        logs.configure(os.environ.get("APP_RELEASE", "unreleased"))
    with create_engine(url, poolclass=NullPool).connect() as connection:
        context.configure(connection=connection, target_metadata=Base.metadata)
        with context.begin_transaction():
            context.run_migrations()
