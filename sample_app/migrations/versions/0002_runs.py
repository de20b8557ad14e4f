"""Runs of jobs: which release queued them, and which one ran them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import DATETIME

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime().with_variant(DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    """Make the table; the release before does not know it and is not hurt by it."""
    op.create_table(
        "runs",
        sa.Column("token", sa.String(32), primary_key=True),
        sa.Column("job", sa.String(80), nullable=False),
        sa.Column("queued_by", sa.String(64), nullable=False),
        sa.Column("queued_at", MOMENT, nullable=False),
        sa.Column("ran_by", sa.String(64), nullable=False),
        sa.Column("began_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT),
        sa.Column("worker", sa.String(320), nullable=False),
        mysql_engine="InnoDB",
    )
    op.create_index("ix_runs_job", "runs", ["job"])
    op.create_index("ix_runs_began_at", "runs", ["began_at"])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("runs")
