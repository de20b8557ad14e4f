"""One table through each driver."""

import asyncio
import os

from flask import Blueprint
from flask_sqlalchemy import SQLAlchemy
from playhouse import db_url
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

blueprint = Blueprint("databases", __name__)
db = SQLAlchemy()
init_app = db.init_app
URL = make_url(os.environ["DATABASE_URL"])
COUNT = "SELECT COUNT(*) FROM word"


class Word(db.Model):
    """A word."""

    id = db.Column(db.Integer, primary_key=True)
    text = db.Column(db.String(100))


def driver(name: str) -> int:
    """Count words through SQLAlchemy with another driver."""
    with create_engine(URL.set(drivername=f"mysql+{name}")).connect() as connection:
        return connection.scalar(text(COUNT))


def asyncmy() -> int:
    """Count words through an asyncio driver."""

    async def count() -> int:
        engine = create_async_engine(URL.set(drivername="mysql+asyncmy"))
        async with engine.connect() as connection:
            words = await connection.scalar(text(COUNT))
        await engine.dispose()
        return words

    return asyncio.run(count())


def peewee() -> int:
    """Count words through peewee, which has URLs without a driver."""
    with db_url.connect(os.environ["PEEWEE_URL"]) as database:
        return database.execute_sql(COUNT).fetchone()[0]


@blueprint.post("/words/<word>")
def write(word: str) -> dict:
    """Insert a word through Flask-SQLAlchemy, and count words through each driver."""
    db.session.add(Word(text=word))
    db.session.commit()
    return {
        "flask-sqlalchemy": db.session.query(Word).count(),
        "pymysql": driver("pymysql"),
        "mysqlclient": driver("mysqldb"),
        "asyncmy": asyncmy(),
        "peewee": peewee(),
    }
