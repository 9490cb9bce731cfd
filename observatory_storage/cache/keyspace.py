"""The keys of one schema of one database in Redis."""

from __future__ import annotations

import hashlib
from typing import Final

import sqlalchemy as sa

__all__ = ["Keyspace"]

_MAY_ASK: Final = sa.text("SELECT has_function_privilege('pg_control_system()', 'execute')")
_SERVER: Final = sa.text("SELECT system_identifier FROM pg_control_system()")
_DATABASE: Final = sa.text(
    "SELECT oid, datname FROM pg_catalog.pg_database WHERE datname = current_database()"
)


class Keyspace:
    """Makes keys that no other database, schema or run of the Redis server shares.

    A database is told by the identifier of its cluster and by its OID, so that all processes agree
    on the keys, whatever host names they connect to.

    Args:
        prefix: what the keys begin with.
        schema: the schema of the tables.
    """

    def __init__(self, prefix: str, schema: str) -> None:
        self._prefix = prefix
        self._schema = schema
        self._database: str | None = None

    @property
    def is_known(self) -> bool:
        """Whether the database has been asked who it is."""
        return self._database is not None

    def learn(self, connection: sa.Connection) -> None:
        """Ask the database who it is, unless that is known."""
        if self._database is not None:
            return
        server = connection.scalar(_SERVER) if connection.scalar(_MAY_ASK) else None
        oid, name = connection.execute(_DATABASE).one()
        told = repr((server, oid, name, self._schema)).encode()
        self._database = hashlib.blake2b(told, digest_size=8).hexdigest()

    def key(self, server: bytes, name: str) -> bytes:
        """The key of a name.

        Args:
            server: the run of the Redis server.
            name: the name.
        """
        # The braces have a cluster keep all keys of a schema on one node.
        known = f"{self._prefix}:{{{self._database}}}:{server[:12].decode('latin-1')}:{name}"
        return known.encode()

    def pattern(self, names: str = "*") -> bytes:
        """A pattern of the keys of the schema, whatever the run of the server.

        Args:
            names: a pattern of their names.
        """
        escaped = "".join(f"\\{c}" if c in "*?[]\\^" else c for c in self._prefix)
        return f"{escaped}:{{{self._database}}}:{names}".encode()
