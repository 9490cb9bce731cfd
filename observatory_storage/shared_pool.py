"""The pool that exporters and handlers share when they are not given one."""

from __future__ import annotations

from observatory_storage.pool import StoragePool
from observatory_storage.processes import process_lock

__all__ = ["shared_pool"]

_shared: list[StoragePool] = []


def shared_pool() -> StoragePool:
    """The one pool of this process with the settings of the environment; it connects on first use.

    It is never closed: it belongs to whatever the process records until its end. A forked child
    goes on with the same pool, which opens connections of its own there.

    Raises:
        ConfigError: a setting is missing or invalid.
    """
    if not _shared:
        with process_lock():
            if not _shared:
                _shared.append(StoragePool.from_env(connect=False))
    return _shared[0]
