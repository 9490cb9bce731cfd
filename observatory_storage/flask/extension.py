"""`Observatory`: the extension."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Final, cast
from weakref import WeakKeyDictionary

from flask import Blueprint, Flask, current_app, g, has_app_context
from werkzeug.local import LocalProxy

from observatory_storage.engine import check_engine
from observatory_storage.errors import ConfigError
from observatory_storage.flask.app_store import AppStore
from observatory_storage.flask.extension_settings import (
    EngineSource,
    extension_settings,
    storage_config,
)
from observatory_storage.flask.flask_blueprint import blueprint_of
from observatory_storage.flask.flask_command import command_of
from observatory_storage.flask.request_recording import record_requests
from observatory_storage.flask.streamed_parts import follow_streams, streaming_store
from observatory_storage.operations import AnyHook
from observatory_storage.otlp.compression import MAX_BODY_BYTES
from observatory_storage.pool import StoragePool
from observatory_storage.web import Authorize
from observatory_storage.writers import LogWriter, MetricWriter, TraceWriter

if TYPE_CHECKING:
    from observatory_storage.unit_of_work import UnitOfWork

__all__ = ["Observatory", "current_observatory"]

logger = logging.getLogger(__name__)

_NAME: Final = "observatory"
_UNIT: Final = "_observatory_uow"
_READ_UNIT: Final = "_observatory_read_uow"


class Observatory:
    """The store of Flask applications.

    Create it at module level, and pass each application to `init_app`, or to the constructor. It
    reads ``app.config`` and connects when the store is first used; a setting that is invalid or
    unknown is refused at once. All attributes belong to the current application, so they need an
    application context, which requests and commands have.

    Example::

        observatory = Observatory()

        def create_app() -> Flask:
            app = Flask(__name__)
            app.config["OBSERVATORY_DATABASE_URL"] = "postgresql://app@localhost/app"
            observatory.init_app(app)
            return app

        @views.get("/traces")
        def traces():
            return [trace.trace_id for trace in observatory.uow.traces.list(limit=20)]

    Args:
        app: the application, if there is only one.
        engine: your application's own engine, whose connections the store shall use, or a function
            that returns it: ``lambda: db.engine`` with Flask-SQLAlchemy. It is called in the
            context of the application that uses it, when the store is first used. See
            `StoragePool.from_engine`.
        hooks: are told what the store does; see `StoragePool.add_hook`.
        read_engine: with `engine`, that of a standby, which `read_uow` uses, or a function that
            returns it.

    Raises:
        ConfigError: a setting is invalid or unknown; it names each of them. Or the engine uses
            another driver than psycopg.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        engine: EngineSource = None,
        hooks: Iterable[AnyHook] = (),
        read_engine: EngineSource = None,
    ) -> None:
        for each in (engine, read_engine):
            if each is not None and not callable(each):
                check_engine(each)
        if read_engine is not None and engine is None:
            raise ConfigError("read_engine: needs engine; without it, set DATABASE_READ_URL")
        self._engine, self._read_engine = engine, read_engine
        self._hooks = tuple(hooks)
        self._stores: WeakKeyDictionary[Flask, AppStore] = WeakKeyDictionary()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Set up an application: its units of work and the commands ``flask observatory``.

        Raises:
            ConfigError: a setting of ``app.config`` is invalid or unknown, or the application has
                been set up before.
        """
        if _NAME in app.extensions:
            raise ConfigError(f"the application {app.name!r} has an Observatory already")
        settings = extension_settings(app.config)
        storage_config(app.config, self._engine)
        store = self._stores[app] = AppStore(app, self._engine, self._hooks, self._read_engine)
        app.extensions[_NAME] = self
        app.teardown_appcontext(_end_context)
        follow_streams(app, store)
        app.cli.add_command(command_of(lambda: self._store))
        if settings.record_requests:
            service_name = settings.service_name or app.name
            record_requests(app, partial(store.writer, TraceWriter), service_name)

    def __call__(self) -> TraceWriter:
        """The writer of traces, so that `observe_llm` and `observe` take this object as their pool.

        While a response streams, it is that of the application of the response.

        Example::

            @observe_llm(observatory, provider="openai", model="gpt-5")
            def ask(messages): ...
        """
        streaming = streaming_store()
        if streaming is not None and not has_app_context():
            return streaming.writer(TraceWriter)
        return self.traces

    @property
    def pool(self) -> StoragePool:
        """The pool. It is made on first use, and connects when it is itself used."""
        return self._store.pool()

    @property
    def uow(self) -> UnitOfWork:
        """The unit of work of the application context, which begins with its first use.

        It ends with the context, after a request or a command, and is rolled back then unless you
        called its ``commit``.
        """
        unit: UnitOfWork | None = g.get(_UNIT)
        if unit is None:
            unit = self.pool.unit_of_work()
            setattr(g, _UNIT, unit)
        return unit

    @property
    def read_uow(self) -> UnitOfWork:
        """A read-only unit of work of the application context, beside `uow`.

        It reads from the server of ``OBSERVATORY_DATABASE_READ_URL``, which may be behind; without
        that setting, from the same server as `uow`. It ends with the context.
        """
        unit: UnitOfWork | None = g.get(_READ_UNIT)
        if unit is None:
            unit = self.pool.unit_of_work(read_only=True)
            setattr(g, _READ_UNIT, unit)
        return unit

    @property
    def traces(self) -> TraceWriter:
        """The writer of traces, which is made on first use. ``uow.traces`` reads them."""
        return self._store.writer(TraceWriter)

    @property
    def metrics(self) -> MetricWriter:
        """The writer of metrics, which is made on first use. ``uow.metrics`` reads them."""
        return self._store.writer(MetricWriter)

    @property
    def logs(self) -> LogWriter:
        """The writer of logs, which is made on first use. ``uow.logs`` reads them."""
        return self._store.writer(LogWriter)

    def blueprint(
        self,
        *,
        health: bool = True,
        otlp: bool = False,
        authorize: Authorize | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
        name: str = _NAME,
    ) -> Blueprint:
        """A blueprint that tells how the store is, and receives OTLP.

        Example::

            app.register_blueprint(observatory.blueprint(), url_prefix="/storage")

        Args:
            health: answer ``GET`` to ``/health``, ``/health/live``, ``/health/ready`` and
                ``/metrics``, as `create_app` describes.
            otlp: receive ``POST`` to ``/v1/traces``, ``/v1/metrics`` and ``/v1/logs``, as
                `otlp_app` describes.
            authorize: called with the WSGI environment of each request, in its context and before
                its body is read. True lets it pass, False answers 401, and a `PermissionError` 403
                with its message. See `bearer_token`. With it, ``/health`` and ``/health/ready``
                also answer the reports, which name servers, users and schemas. It must be given
                if OTLP is received; to receive it from everybody, pass ``lambda environ: True``.
            max_body_bytes: the bound on a body of OTLP, before and after decompression.
            name: the name of the blueprint. An application needs one for each blueprint.

        Raises:
            ConfigError: OTLP would be received from everybody, or nothing is answered at all.
        """
        return blueprint_of(
            lambda: self.pool,
            health=health,
            otlp=otlp,
            authorize=authorize,
            max_body_bytes=max_body_bytes,
            name=name,
        )

    def close(self) -> None:
        """Flush the writers of the current application, and close its pool.

        Tests call it before they drop a database. The next use makes new ones. At the end of a
        process, writers are flushed without it.

        Raises:
            StorageError: buffered rows could not be written.
        """
        self._store.close()

    @property
    def _store(self) -> AppStore:
        app = _app()
        store = self._stores.get(app)
        if store is None:
            raise _not_set_up(app)
        return store


def _app() -> Flask:
    return cast("Flask", current_app._get_current_object())  # type: ignore[attr-defined]


def _of_current_app() -> Observatory:
    found: Observatory | None = current_app.extensions.get(_NAME)
    if found is None:
        raise _not_set_up(_app())
    return found


if TYPE_CHECKING:
    current_observatory: Observatory
else:
    current_observatory = LocalProxy(_of_current_app)
"""The `Observatory` of the current application, for modules that cannot import it."""


def _not_set_up(app: Flask) -> ConfigError:
    return ConfigError(
        f"the application {app.name!r} has no Observatory: call observatory.init_app(app)"
    )


def _end_context(_: BaseException | None) -> None:
    for name in (_UNIT, _READ_UNIT):
        unit: UnitOfWork | None = g.pop(name, None)
        if unit is None:
            continue
        try:
            unit.__exit__(None, None, None)
        except Exception:
            # An error here would keep Flask from ending the context.
            logger.exception("the unit of work could not be rolled back")
