"""Creates and drops databases."""

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
    """Create an empty database for the length of the block. Yields its URL.

    The database is dropped at the end, even if clients are still connected. No other database is
    changed.

    Args:
        url: the URL of any database of the server. Its role needs CREATEDB. None starts an embedded
            server for the block.
        prefix: the beginning of the name of the database. A random part follows.
        settings: settings of the embedded server. The default ones are fast and unsafe.
        in_memory: whether the embedded server keeps its data in main memory, if it has enough.

    Raises:
        ConnectionLost: the server cannot be reached.
        StorageError: the server refuses to create the database.
        EmbeddedServerError: the embedded server cannot be started.
    """
    with contextlib.ExitStack() as stack:
        if url is None:
            server = stack.enter_context(EmbeddedPostgres(settings=settings, in_memory=in_memory))
            url = server.url
        name = f"{prefix}_{secrets.token_hex(6)}"
        try:
            # Inside the try block, since an interrupt can come after the server has created it.
            create_database(url, name)
            yield with_database(url, name)
        finally:
            drop_database(url, name)


def create_database(url: str, name: str, *, template: str = "template0") -> None:
    """Create a UTF-8 database on the server of this URL. An existing name is an error."""
    query = sql.SQL("CREATE DATABASE {} TEMPLATE {} ENCODING 'UTF8'")
    with translated(), _connection(url) as connection:
        connection.execute(query.format(sql.Identifier(name), sql.Identifier(template)))


def drop_database(url: str, name: str) -> None:
    """Drop a database if it exists, and disconnect its clients."""
    query = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    with translated(), _connection(url) as connection:
        for attempts_left in reversed(range(_DROP_ATTEMPTS)):
            try:
                connection.execute(query)
                return
            except psycopg.errors.ObjectInUse:
                # A client may have reconnected in between.
                if not attempts_left:
                    raise


def with_database(url: str, name: str) -> str:
    """The same URL with another database, and without the name of the driver."""
    parts = urlsplit(url)
    # The parameter dbname would take precedence over the path.
    query = [pair for pair in parse_qsl(parts.query) if pair[0] != "dbname"]
    parameters = f"?{urlencode(query, quote_via=quote)}" if query else ""
    return f"postgresql://{parts.netloc}/{quote(name)}{parameters}"


def _connection(url: str) -> psycopg.Connection[tuple[object, ...]]:
    driverless = "postgresql://" + url.partition("://")[2]
    return psycopg.connect(driverless, autocommit=True)
