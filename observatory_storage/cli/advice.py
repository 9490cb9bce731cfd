"""Advice for errors: what the user can do about each.

When PostgreSQL refuses a connection, libpq reports text in the server's language, without a
SQLSTATE. So the cause is found by trying connections (is the port open? does another database
accept the role?), not by reading the message.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from typing import Any

import psycopg

from observatory_storage.cli.common_options import State
from observatory_storage.config import StorageConfig
from observatory_storage.errors import (
    CacheError,
    ConnectionLost,
    PoolError,
    StorageError,
    Timeout,
    sqlstate_of,
)

__all__ = ["advice_for", "connection_advice", "redis_advice"]

_PROBE_SECS = 5
# Databases that nearly every server has.
_USUAL_DATABASES = ("postgres", "template1")
# PostgreSQL's SSLRequest message: its length and its code.
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_MISSING_SCHEMA = frozenset({"42P01", "3F000", "42703"})  # no such table, schema, column
_NO_PRIVILEGE = "42501"
_TOO_MANY_CONNECTIONS = "53300"
_READ_ONLY = "25006"


def advice_for(error: StorageError, state: State) -> str | None:
    """The advice for an error that ended a command, or None. Empty if the message gives it."""
    states = {sqlstate_of(each) for each in _chain(error)}
    if states & _MISSING_SCHEMA:
        return ""
    if _NO_PRIVILEGE in states:
        return "The role lacks the privilege: grant it, or connect as the owner of the tables."
    if _TOO_MANY_CONNECTIONS in states:
        return "The server has no free connection: lower DB_POOL_MAX_CONNECTIONS here or elsewhere."
    if _READ_ONLY in states:
        return (
            "The server is read-only: it is a replica (connect to the primary, or name several"
            " hosts and target_session_attrs=read-write), or default_transaction_read_only is on."
        )
    if isinstance(error, Timeout):
        return "Choose a shorter time range, or raise the statement timeout."
    if isinstance(error, CacheError):
        return redis_advice(state)
    if isinstance(error, (ConnectionLost, PoolError)):
        with contextlib.suppress(StorageError):  # the configuration may be wrong as well
            return connection_advice(error, state.config())
    return None


def redis_advice(state: State) -> str:
    """What to do if Redis does not answer."""
    name = state.variable("REDIS_URL")
    return f"Start Redis or correct {name}. Redis is optional: without {name} it is not used."


def connection_advice(error: BaseException, config: StorageConfig) -> str:
    """Why the connection to PostgreSQL failed, and what to change. Tries a few connections."""
    postgres = config.postgres
    refused = next(
        (each for each in _chain(error) if isinstance(each, psycopg.OperationalError)), None
    )
    tried = refused.pgconn if refused is not None else None
    host, port = postgres.host, postgres.port
    if tried is not None and tried.host:
        host, port = tried.host.decode(), int(tried.port or port)
    unreachable = _unreachable(host, port)
    if unreachable is not None:
        return unreachable
    if isinstance(refused, psycopg.errors.ConnectionTimeout):
        # The attempts below would time out too.
        return (
            f"{host} port {port} accepted the connection and did not answer within"
            f" {config.pool.connect_timeout_secs} s (DB_POOL_CONNECT_TIMEOUT): check that it is"
            " PostgreSQL and not overloaded."
        )
    if tried is not None and tried.needs_password:
        return "The server requires a password: set DB_PASSWORD, or add it to DATABASE_URL."
    if postgres.ssl_mode in {"require", "verify-ca", "verify-full"} and _is_without_ssl(host, port):
        return f"The server does not offer SSL, which DB_SSL_MODE={postgres.ssl_mode} requires."
    if _databases(config, postgres.database) is not None:
        return (
            "The server accepts a connection now: run the command again. If it fails again, see the"
            " server's log; it may allow fewer connections than DB_POOL_MIN_CONNECTIONS,"
            f" {config.pool.min_connections}."
        )
    present = _databases(config, *_USUAL_DATABASES)
    if present is not None and postgres.database not in present:
        return (
            f"The server has no database {postgres.database!r}: create it"
            f" (createdb {postgres.database}), or correct DB_NAME or the end of DATABASE_URL."
        )
    if present is not None:
        return (
            f"The role {postgres.username!r} may not connect to {postgres.database!r}: grant it"
            " CONNECT."
        )
    if tried is not None and tried.used_password:
        return (
            f"The server rejected the password of {postgres.username!r}, unless the error above"
            " says otherwise: correct DB_USER and DB_PASSWORD, or those in DATABASE_URL."
        )
    return (
        f"The server refused {postgres.username!r} for the reason above: correct DB_USER, allow"
        " the role in the server's pg_hba.conf, or free connections."
    )


def _unreachable(host: str, port: int) -> str | None:
    """The advice if nothing listens on the port; None if something does."""
    remedy = "start PostgreSQL there, or correct DB_HOST and DB_PORT, or those in DATABASE_URL."
    try:
        _connected(host, port).close()
    except socket.gaierror:
        return f"There is no host named {host!r}: correct DB_HOST, or DATABASE_URL."
    except TimeoutError:
        return f"{host} port {port} does not answer (a firewall?): {remedy}"
    except OSError:
        return f"Nothing listens on {host} port {port}: {remedy}"
    return None


def _is_without_ssl(host: str, port: int) -> bool:
    try:
        with _connected(host, port) as connection:
            connection.sendall(_SSL_REQUEST)
            return connection.recv(1) == b"N"
    except OSError:
        return False


def _connected(host: str, port: int) -> socket.socket:
    if not host.startswith(("/", "@")):
        return socket.create_connection((host, port), timeout=_PROBE_SECS)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_PROBE_SECS)
    # An abstract socket begins with "@" for libpq, and with a NUL for the kernel.
    path = f"{host}/.s.PGSQL.{port}"
    try:
        connection.connect(f"\0{path[1:]}" if path.startswith("@") else path)
    except OSError:
        connection.close()
        raise
    return connection


def _databases(config: StorageConfig, *candidates: str) -> set[str] | None:
    """The names of the server's databases; None if no candidate accepts a connection."""
    # Not the URL as text: libpq and SQLAlchemy do not agree on all of its encoding.
    url = config.postgres.url()
    parameters: dict[str, Any] = {
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "password": url.password,
        **url.query,
        **config.postgres.connect_args(),
        "connect_timeout": _PROBE_SECS,
    }
    for name in candidates:
        with (
            contextlib.suppress(psycopg.Error),
            psycopg.connect(**parameters, dbname=name) as connection,
        ):
            return {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        original = getattr(error, "orig", None)
        if isinstance(original, BaseException):
            yield original
        error = error.__cause__
