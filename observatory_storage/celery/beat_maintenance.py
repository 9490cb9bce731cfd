"""Maintenance of the store as a task that Celery beat sends."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from observatory_storage.celery.argument_checks import check_application, is_positive
from observatory_storage.errors import ConfigError
from observatory_storage.pool import StoragePool
from observatory_storage.shared_pool import shared_pool

if TYPE_CHECKING:
    from celery import Celery, Task

__all__ = ["add_maintenance"]

_NAME: Final = "observatory_storage.maintain"
# The rest of the interval is for the step that is under way when the time is over.
_SHARE_OF_INTERVAL: Final = 5 / 6


def add_maintenance(
    app: Celery,
    every_secs: float = 60,
    *,
    pool: StoragePool | Callable[[], StoragePool] | None = None,
) -> Task:
    """Register the task ``observatory_storage.maintain``, and have Celery beat send it regularly.

    The task calls `StoragePool.maintain` and returns the report as a dict for JSON; its result is
    not stored, because the table ``maintenance_runs`` has it. One run at a time works, whatever
    sends the task, and a worker may be killed within it: the next run goes on. A run stops after
    five sixths of the interval. A message that no worker has taken within the interval expires, so
    none pile up while the workers are away.

    Add it at any time before the worker and beat start. An assignment to ``app.conf.beat_schedule``
    does not remove it. Route the task by its name, in ``task_routes``.

    Example::

        app = Celery("tasks", broker="redis://localhost/0")
        add_maintenance(app)

    Args:
        app: the application.
        every_secs: the seconds from one run to the next.
        pool: the pool to maintain, or a function that returns it, which is called in the worker.
            None is a pool with the settings of the environment, which connects on first use.

    Returns:
        The task, for example to call its ``delay(for_secs=600)``.

    Raises:
        ConfigError: an argument is not valid, or Celery is not installed.
    """
    check_application(app)
    if not is_positive(every_secs):
        raise ConfigError(f"every_secs: must be a number above 0, not {every_secs!r}")
    if not (pool is None or isinstance(pool, StoragePool) or callable(pool)):
        raise ConfigError(
            "pool: must be a StoragePool, a function that returns one, or None,"
            f" not {type(pool).__name__}"
        )

    # Not shared: other applications of this process have pools of their own.
    @app.task(name=_NAME, ignore_result=True, shared=False)  # type: ignore[untyped-decorator]  # Celery has no types
    def maintain(for_secs: float | None = None) -> dict[str, Any]:
        """Do what the store of telemetry needs from time to time."""
        return _pool_of(pool).maintain(for_secs).to_dict(json=True)

    def add_to_schedule(sender: Celery, **_: object) -> None:
        sender.add_periodic_task(
            every_secs,
            maintain,
            kwargs={"for_secs": every_secs * _SHARE_OF_INTERVAL},
            name=_NAME,
            expires=every_secs,
        )

    if app.finalized:
        add_to_schedule(app)
    else:
        # Not now: the application's module may still assign its schedule.
        app.on_after_finalize.connect(add_to_schedule, weak=False)
    return maintain


def _pool_of(pool: StoragePool | Callable[[], StoragePool] | None) -> StoragePool:
    if pool is None:
        return shared_pool()
    return pool if isinstance(pool, StoragePool) else pool()
