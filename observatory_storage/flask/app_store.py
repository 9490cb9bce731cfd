"""The pool and the writers of one application."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any, TypeVar

import sqlalchemy as sa
from flask import Flask

from observatory_storage.config import StorageConfig
from observatory_storage.config.sources import Source
from observatory_storage.engine import check_engine
from observatory_storage.errors import PoolError, translated
from observatory_storage.flask.extension_settings import (
    EngineSource,
    extension_settings,
    settings_sources,
    storage_config,
)
from observatory_storage.operations import AnyHook
from observatory_storage.pool import StoragePool
from observatory_storage.processes import PerProcess
from observatory_storage.recording.shared_writer import name_service
from observatory_storage.writers import LogWriter, MetricWriter, TraceWriter

__all__ = ["AppStore"]

_Writer = TypeVar("_Writer", TraceWriter, MetricWriter, LogWriter)


class AppStore:
    """Makes the pool and the writers of an application when they are first used.

    They survive forks by themselves, so they may be made before or after one.

    Args:
        app: the application, which this does not keep alive.
        engine: the application's own engine, or a function that returns it.
        hooks: the hooks of the pool.
        read_engine: the application's engine of a standby, or a function that returns it.
    """

    def __init__(
        self,
        app: Flask,
        engine: EngineSource,
        hooks: Iterable[AnyHook],
        read_engine: EngineSource = None,
    ) -> None:
        self._app = weakref.ref(app)
        self._app_name = app.name
        self._engine = engine
        self._read_engine = read_engine
        self._hooks = tuple(hooks)
        # A thread of the parent process may hold the lock when it forks, and gevent may have
        # replaced the class in the child.
        self._lock = PerProcess(lambda: threading.RLock())  # noqa: PLW0108 - looks it up again
        self._pool: StoragePool | None = None
        self._writers: dict[type[Any], Any] = {}

    def pool(self) -> StoragePool:
        """The pool. It connects on first use."""
        if self._pool is None:
            with self._lock.get():
                if self._pool is None:
                    self._pool = self.new_pool()
        return self._pool

    def writer(self, kind: type[_Writer]) -> _Writer:
        """The writer of this kind."""
        made: _Writer | None = self._writers.get(kind)
        if made is None:
            with self._lock.get():
                made = self._writers.get(kind)
                if made is None:
                    settings = extension_settings(self._app_config())
                    made = kind(self.pool(), settings.writers)
                    if isinstance(made, TraceWriter):
                        name_service(made, settings.service_name or self._app_name)
                    self._writers[kind] = made
        return made

    def new_pool(self, file: Any = None, *, connect: bool = False) -> StoragePool:
        """A pool with the settings of the application, and of a file."""
        engine, config = self._own_engine(), self.config(file)
        if engine is None:
            return StoragePool(config, connect=connect, hooks=self._hooks)
        if connect:
            with translated(), engine.connect():
                pass
        read_engine = self._called(self._read_engine)
        return StoragePool.from_engine(engine, config, hooks=self._hooks, read_engine=read_engine)

    def config(self, file: Any = None) -> StorageConfig:
        """The settings of the application, and of a file."""
        return storage_config(self._app_config(), self._own_engine(), file)

    def sources(self, file: Any = None) -> list[Source]:
        """The places that these settings are read from."""
        return settings_sources(self._app_config(), self._own_engine(), file)

    def close(self) -> None:
        """Flush and close the writers, and close the pool. The next use makes new ones."""
        with self._lock.get():
            writers, self._writers = list(self._writers.values()), {}
            pool, self._pool = self._pool, None
        with ExitStack() as closing:  # closes all of them, whatever fails
            if pool is not None:
                closing.callback(pool.close)
            for writer in writers:
                closing.callback(writer.close)

    def _living_app(self) -> Flask:
        app = self._app()
        if app is None:
            raise PoolError("the application of this store is gone", retryable=False)
        return app

    def _app_config(self) -> Mapping[str, Any]:
        return self._living_app().config

    def _own_engine(self) -> sa.Engine | None:
        return self._called(self._engine)

    def _called(self, given: EngineSource) -> sa.Engine | None:
        engine = given
        if callable(engine):
            with self._living_app().app_context():
                engine = engine()
        if given is not None:
            check_engine(engine)
        return engine
