"""Alembic's environment. DATABASE_URL is read here, so that `%` in it needs no escaping."""

import logging

from alembic import context
from environs import Env
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from sample_app import logs
from sample_app.config import NOT_EMPTY
from sample_app.models import Base

env = Env()
url = env.str("DATABASE_URL", validate=NOT_EMPTY)

if context.is_offline_mode():
    context.configure(url=url, target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    if not logging.getLogger().handlers:
        logs.configure(env.str("APP_RELEASE", "unreleased"))
    with create_engine(url, poolclass=NullPool).connect() as connection:
        context.configure(connection=connection, target_metadata=Base.metadata)
        with context.begin_transaction():
            context.run_migrations()
