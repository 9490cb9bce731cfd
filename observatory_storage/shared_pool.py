"""The pool that exporters and handlers share when they are not given one."""

from __future__ import annotations

from observatory_storage.config import PostgresConfig, StorageConfig
from observatory_storage.errors import ConfigError
from observatory_storage.pool import StoragePool
from observatory_storage.processes import process_lock

__all__ = ["shared_pool"]

_shared: list[StoragePool] = []


def shared_pool() -> StoragePool:
    """The one pool of this process with the settings of the environment; it connects on first use.

    It is never closed: it belongs to whatever the process records until its end. A forked child
    goes on with the same pool, which opens connections of its own there.

    Raises:
        ConfigError: a setting is invalid, or none names the database.
    """
    if not _shared:
        config = StorageConfig.from_env()
        # Whoever uses this pool works in the background. Nobody would see that it looks for a
        # database that nobody has named.
        if config.postgres == PostgresConfig():
            raise ConfigError(
                "DATABASE_URL: is not set: set it to postgresql://user:password@host/database,"
                " or pass a pool"
            )
        with process_lock():
            if not _shared:
                _shared.append(StoragePool(config, connect=False))
    return _shared[0]
