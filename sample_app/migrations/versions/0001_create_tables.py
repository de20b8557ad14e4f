"""Create the tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import DATETIME

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MOMENT = sa.DateTime().with_variant(DATETIME(fsp=6), "mysql", "mariadb")
BIG_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
INNODB = {"mysql_engine": "InnoDB"}


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "notes",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("token", sa.String(32), nullable=False),
        sa.Column("author", sa.String(60), nullable=False),
        sa.Column("body", sa.String(1000), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("request_id", sa.String(64)),
        sa.Column("queued_at", MOMENT),
        sa.Column("word_count", sa.Integer),
        sa.Column("counted_by", sa.String(320)),
        sa.UniqueConstraint("token", name="uq_notes_token"),
        **INNODB,
    )
    op.create_index("ix_notes_word_count_queued_at", "notes", ["word_count", "queued_at"])
    op.create_table(
        "runs",
        sa.Column("token", sa.String(32), primary_key=True),
        sa.Column("job", sa.String(80), nullable=False),
        sa.Column("queued_by", sa.String(64), nullable=False),
        sa.Column("queued_at", MOMENT, nullable=False),
        sa.Column("ran_by", sa.String(64), nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT),
        sa.Column("failed", sa.Boolean),
        sa.Column("worker", sa.String(320), nullable=False),
        sa.Column("connection", sa.BigInteger, nullable=False),
        **INNODB,
    )
    op.create_index("ix_runs_job", "runs", ["job"])
    op.create_index("ix_runs_started_at", "runs", ["started_at"])
    op.create_table(
        "ticks",
        sa.Column("slot", BIG_ID, primary_key=True, autoincrement=False),
        sa.Column("ticked_at", MOMENT, nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        **INNODB,
    )


def downgrade() -> None:
    """Drop the tables."""
    for table in ("ticks", "runs", "notes"):
        op.drop_table(table)
