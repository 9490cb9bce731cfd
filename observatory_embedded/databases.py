"""A database of one's own, for as long as one needs it."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import psycopg
from psycopg import sql

from observatory_embedded.cluster import FAST_SETTINGS, Setting
from observatory_embedded.postgres import EmbeddedPostgres
from observatory_storage.errors import translated

_DROP_ATTEMPTS = 3


@contextmanager
def temporary_database(
    url: str | None = None,
    *,
    prefix: str = "observatory",
    settings: Mapping[str, Setting] | None = FAST_SETTINGS,
    in_memory: bool = True,
) -> Iterator[str]:
    """A new, empty database for the length of the block; yields its URL.

    It is dropped at the end, with whatever is still connected to it; no other database is touched.

    Args:
        url: a server, by the URL of one of its databases; its role needs CREATEDB. None starts an
            embedded server for the block.
        prefix: what the database's name begins with; a random part follows.
        settings: settings of the embedded server; unsafe and fast ones unless given.
        in_memory: whether the embedded server keeps its data in main memory where there is room.

    Raises:
        ConnectionLost, StorageError: the server cannot be reached, or refuses the database.
        EmbeddedServerError: the embedded server cannot be started.
    """
    with contextlib.ExitStack() as stack:
        if url is None:
            server = stack.enter_context(EmbeddedPostgres(settings=settings, in_memory=in_memory))
            url = server.url
        name = f"{prefix}_{secrets.token_hex(6)}"
        try:
            # Within: an interrupt can come when the server has made it and before we know.
            create_database(url, name)
            yield with_database(url, name)
        finally:
            drop_database(url, name)


def create_database(url: str, name: str, *, template: str = "template0") -> None:
    """Make a database in UTF-8 on the server of this URL; an error if the name is taken."""
    query = sql.SQL("CREATE DATABASE {} TEMPLATE {} ENCODING 'UTF8'")
    with translated(), _connection(url) as connection:
        connection.execute(query.format(sql.Identifier(name), sql.Identifier(template)))


def drop_database(url: str, name: str) -> None:
    """Drop a database if it is there, disconnecting whoever uses it."""
    query = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    with translated(), _connection(url) as connection:
        for attempts_left in reversed(range(_DROP_ATTEMPTS)):
            try:
                connection.execute(query)
                return
            except psycopg.errors.ObjectInUse:
                # A client that connects again and again can slip in between.
                if not attempts_left:
                    raise


def with_database(url: str, name: str) -> str:
    """The same URL with another database, and without the name of a driver."""
    parts = urlsplit(url)
    # libpq takes the database from a parameter too, which would win.
    query = [pair for pair in parse_qsl(parts.query) if pair[0] != "dbname"]
    parameters = f"?{urlencode(query, quote_via=quote)}" if query else ""
    return f"postgresql://{parts.netloc}/{quote(name)}{parameters}"


def _connection(url: str) -> psycopg.Connection[tuple[object, ...]]:
    driverless = "postgresql://" + url.partition("://")[2]
    return psycopg.connect(driverless, autocommit=True)
