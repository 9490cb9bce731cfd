"""What ``check`` says of the server that read-only units of work use."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from observatory_storage.errors import translated
from observatory_storage.health import HealthReport
from observatory_storage.pool import StoragePool

__all__ = ["WrongReadServer", "read_server_state"]

_MAY_ASK: Final = sa.text("SELECT has_function_privilege('pg_control_system()', 'execute')")
_IDENTITY: Final = sa.text(
    "SELECT system_identifier, (SELECT oid FROM pg_catalog.pg_database"
    " WHERE datname = current_database()) FROM pg_control_system()"
)


class WrongReadServer(Exception):
    """The read server does not answer, or has other data than the primary."""


def read_server_state(pool: StoragePool, health: HealthReport) -> str:
    """Its role and its lag.

    Raises:
        WrongReadServer: it cannot be used.
        StorageError: a server could not be asked.
    """
    read = health.read
    assert read is not None
    if not read.ok:
        raise WrongReadServer(f"{read.error}: read-only units of work fail")
    told = f"version {read.version}, a {read.role}, answered in {read.latency_ms:.1f} ms"
    primary, replica = _identity(pool.engine), _identity(pool.read_engine)
    if primary is None or replica is None:
        told += "; not verified to be a replica, since the role may not call pg_control_system()"
    elif primary != replica:
        raise WrongReadServer("it is no replica of the primary: its data are others")
    if read.role == "primary":
        return told
    if read.lag_bytes is None or read.lag_secs is None:
        return f"{told}; its lag is not known"
    return f"{told}; {read.lag_bytes} bytes and {read.lag_secs:.3f} s behind"


def _identity(engine: sa.Engine) -> tuple[object, ...] | None:
    """The cluster and the database; None if the role may not ask."""
    with translated(), engine.connect() as connection:
        if not connection.scalar(_MAY_ASK):
            return None
        return tuple(connection.execute(_IDENTITY).one())
