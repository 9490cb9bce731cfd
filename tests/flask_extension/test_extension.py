"""The extension belongs to no application, and each application has a store of its own."""

from __future__ import annotations

import gc
import importlib
import logging
import sys
import weakref
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from flask import Flask, current_app

from observatory_storage import (
    ConfigError,
    LoggingHook,
    StorageError,
    StoragePool,
    WriterConfig,
)
from observatory_storage.flask import Observatory, current_observatory
from tests.flask_extension.conftest import MakeApp
from tests.hosts.hosting import names_stored
from tests.servers import Server


def span(name: str) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "trace_id": "1" * 32,
        "span_id": "2" * 16,
        "name": name,
        "service_name": "shop",
        "start_time": now,
        "end_time": now,
    }


def test_what_is_written_in_one_request_is_read_in_another(
    app: Flask, observatory: Observatory
) -> None:
    @app.post("/spans")
    def write() -> dict[str, Any]:
        observatory.traces.write_span(span("order"))
        observatory.logs.write_log({"timestamp": datetime.now(UTC), "body": "ordered"})
        metric = observatory.metrics.write_metric({"name": "orders", "metric_type": "gauge"})
        observatory.metrics.write_data_point(
            {"metric_id": metric, "timestamp": datetime.now(UTC), "value": 1}
        )
        return {}

    @app.get("/spans")
    def read() -> dict[str, Any]:
        uow = current_observatory.uow
        return {
            "spans": [one.name for one in uow.traces.get_spans("1" * 32)],
            "logs": [one.body for one in uow.logs.list()],
            "metrics": [one.name for one in uow.metrics.list()],
        }

    client = app.test_client()
    assert client.post("/spans").status_code == 200
    with app.app_context():
        for writer in (observatory.traces, observatory.logs, observatory.metrics):
            writer.flush()
    assert client.get("/spans").json == {
        "spans": ["order"],
        "logs": ["ordered"],
        "metrics": ["orders"],
    }


def test_everything_is_made_once_for_an_application(app: Flask, observatory: Observatory) -> None:
    with app.app_context():
        first = observatory.pool, observatory.traces, observatory.logs, observatory.metrics
        assert observatory.pool is observatory.traces.source
        assert observatory.pool.stats().size == 0  # it connects when it is used
    with app.app_context():
        assert first == (
            *(observatory.pool, observatory.traces),
            *(observatory.logs, observatory.metrics),
        )
    assert app.extensions["observatory"] is observatory


def test_two_applications_have_two_stores(
    make_app: MakeApp,
    observatory: Observatory,
    database_url: str,
    postgres_server: Server,
    migrated_template: str,
) -> None:
    one = make_app()
    with postgres_server.database(migrated_template) as other_url:
        other = make_app(OBSERVATORY_DATABASE_URL=other_url)
        with one.app_context():
            observatory.traces.write_span(span("one"))
            with other.app_context():
                observatory.traces.write_span(span("other"))
                assert str(observatory.pool.engine.url.database) in other_url
            assert str(observatory.pool.engine.url.database) in database_url
        for app in (one, other):
            with app.app_context():
                observatory.close()
        assert names_stored(database_url) == {"one": 1}
        assert names_stored(other_url) == {"other": 1}


def test_extension_keeps_no_application_alive(database_url: str) -> None:
    observatory = Observatory()
    app = Flask("shop")
    app.config["OBSERVATORY_DATABASE_URL"] = database_url
    observatory.init_app(app)
    with app.app_context():
        assert observatory.pool.stats().size == 0
    ended = weakref.ref(app)
    del app
    gc.collect()
    assert ended() is None


def test_settings_may_follow_init_app(observatory: Observatory, database_url: str) -> None:
    app = Flask("shop")
    observatory.init_app(app)
    app.config["OBSERVATORY_DATABASE_URL"] = database_url
    with app.app_context():
        assert observatory.pool.health_check().status == "healthy"
        observatory.close()


def test_database_url_of_the_environment_is_the_fallback(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    app = Flask("shop")
    observatory = Observatory(app)
    with app.app_context():
        assert str(observatory.pool.engine.url.database) in database_url
        assert observatory.pool.health_check().status == "healthy"
        observatory.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"OBSERVATORY_RETENTION_TRACE": "90d"},
            "app.config: OBSERVATORY_RETENTION_TRACE: there is no such setting; did you mean"
            " OBSERVATORY_RETENTION_TRACES?",
        ),
        (
            {"OBSERVATORY_CACHE_TIMEOUT_MS": "soon"},
            "app.config: OBSERVATORY_CACHE_TIMEOUT_MS = 'soon': must be a whole number",
        ),
        (
            {"OBSERVATORY_WRITERS": {"batch_sise": 5}},
            "app.config: OBSERVATORY_WRITERS = {'batch_sise': 5}: has no batch_sise; there are",
        ),
        (
            {"OBSERVATORY_WRITERS": {"batch_size": 0}},
            "app.config: OBSERVATORY_WRITERS = {'batch_size': 0}: batch_size=0: must be an integer",
        ),
        (
            {"OBSERVATORY_WRITERS": "fast"},
            "app.config: OBSERVATORY_WRITERS = 'fast': must be a WriterConfig, or a dict",
        ),
        (
            {"OBSERVATORY_CONFIG_FILE": 5},
            "app.config: OBSERVATORY_CONFIG_FILE = 5: must be the path of a file",
        ),
        (
            {"OBSERVATORY_SERVICE_NAME": " "},
            "app.config: OBSERVATORY_SERVICE_NAME = ' ': must be a name",
        ),
        (
            {"OBSERVATORY_CONFIG_FILE": "missing.yaml"},
            "missing.yaml: cannot be read: No such file or directory",
        ),
    ],
)
def test_init_app_refuses_settings(
    settings: dict[str, Any], message: str, make_app: MakeApp
) -> None:
    with pytest.raises(ConfigError) as raised:
        make_app(**settings)
    assert message in str(raised.value)


def test_file_of_settings(make_app: MakeApp, observatory: Observatory, tmp_path: Any) -> None:
    file = tmp_path / "storage.toml"
    file.write_text("retention = { traces = '90d', logs = '7d' }")
    app = make_app(OBSERVATORY_CONFIG_FILE=file, OBSERVATORY_RETENTION_LOGS="1d")
    with app.app_context():
        assert observatory.pool.config.retention.traces is not None
        assert observatory.pool.config.retention.traces.days == 90
        assert observatory.pool.config.retention.logs is not None
        assert observatory.pool.config.retention.logs.days == 1


def test_writers_are_as_configured(make_app: MakeApp, observatory: Observatory) -> None:
    config = WriterConfig(redact=lambda row: {**row, "name": "redacted"})
    with make_app(OBSERVATORY_WRITERS=config).app_context():
        observatory.traces.write_span(span("secret"))
        observatory.traces.flush()
        assert [one.name for one in observatory.uow.traces.get_spans("1" * 32)] == ["redacted"]


def test_requests_do_not_wait_while_the_buffer_is_full(
    make_app: MakeApp, observatory: Observatory, database_url: str
) -> None:
    app = make_app(OBSERVATORY_WRITERS={"batch_size": 1, "max_buffered": 1})
    with app.app_context():
        with psycopg.connect(database_url) as other:
            other.execute("LOCK TABLE trace_spans")  # no flush ends meanwhile
            for number in range(1, 5):
                observatory.traces.write_span({**span("many"), "span_id": f"{number:016x}"})
        assert observatory.traces.flush().committed == 1
        assert observatory.traces.write_stats().dropped == 3


def test_an_application_is_set_up_once(app: Flask, observatory: Observatory) -> None:
    with pytest.raises(ConfigError, match="'shop' has an Observatory already"):
        observatory.init_app(app)
    with pytest.raises(ConfigError, match="'shop' has an Observatory already"):
        Observatory(app)


def test_application_that_was_not_set_up(observatory: Observatory) -> None:
    with Flask("bare").app_context():
        for use in (lambda: observatory.pool, lambda: current_observatory.uow):
            with pytest.raises(ConfigError, match=r"'bare' has no Observatory: call observatory\."):
                use()


def test_outside_of_an_application(observatory: Observatory) -> None:
    for use in (lambda: observatory.traces, lambda: observatory.uow):
        with pytest.raises(RuntimeError, match="outside of application context"):
            use()


def test_hooks_hear_of_the_store(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    app = Flask("shop")
    app.config["OBSERVATORY_DATABASE_URL"] = database_url
    observatory = Observatory(app, hooks=[LoggingHook()])
    with app.app_context(), caplog.at_level(logging.DEBUG, "observatory_storage.operations"):
        observatory.uow.traces.list()
        observatory.close()
    assert "query" in {getattr(record, "storage_operation", "") for record in caplog.records}


def test_closing_flushes_and_begins_anew(
    app: Flask, observatory: Observatory, database_url: str
) -> None:
    with app.app_context():
        pool, writer = observatory.pool, observatory.traces
        writer.write_span(span("last"))
        observatory.close()
        assert names_stored(database_url) == {"last": 1}
        with pytest.raises(StorageError):
            pool.unit_of_work()
        assert observatory.traces is not writer
        assert len(observatory.uow.traces.list()) == 1


class TestOwnEngine:
    def test_its_connections_are_used(self, database_url: str) -> None:
        engine = sa.create_engine("postgresql+psycopg://" + database_url.partition("://")[2])

        def engine_of_app() -> sa.Engine:
            assert current_app.name == "shop"  # as the engine of Flask-SQLAlchemy needs it
            return engine

        app = Flask("shop")
        app.config["OBSERVATORY_RETENTION_TRACES"] = "90d"
        observatory = Observatory(app, engine=engine_of_app)
        with app.app_context():
            assert observatory.pool.config.retention.traces is not None
            assert observatory.pool.engine.pool is engine.pool
            assert observatory.pool.config.postgres.database == engine.url.database
            assert len(observatory.uow.traces.list()) == 0
            assert engine.pool.checkedout() == 1  # type: ignore[attr-defined]
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        with app.app_context():
            observatory.close()
            with engine.connect() as connection:
                assert connection.scalar(sa.text("SELECT 1")) == 1
        engine.dispose()

    def test_settings_of_another_connection_are_refused(self, database_url: str) -> None:
        app = Flask("shop")
        app.config["OBSERVATORY_DATABASE_URL"] = database_url
        with pytest.raises(ConfigError) as raised:
            Observatory(app, engine=lambda: sa.create_engine("postgresql+psycopg://"))
        assert str(raised.value) == (
            "app.config: OBSERVATORY_DATABASE_URL: must not be set, since `engine` is given"
        )

    def test_environment_does_not_tell_of_its_connection(
        self, database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DATABASE_URL", "postgresql://other:secret@elsewhere/other")
        monkeypatch.setenv("DB_HOST", "elsewhere")
        monkeypatch.setenv("DB_RETRY_MAX_ATTEMPTS", "7")
        engine = sa.create_engine("postgresql+psycopg://" + database_url.partition("://")[2])
        app = Flask("shop")
        observatory = Observatory(app, engine=engine)
        with app.app_context():
            config = observatory.pool.config
            assert config.postgres.host != "elsewhere"
            assert config.postgres.database == engine.url.database
            assert config.retry.max_attempts == 7
        engine.dispose()

    @pytest.mark.parametrize(
        "engine", ["postgresql://localhost/app", sa.create_engine("sqlite://")]
    )
    def test_other_engines_are_refused(self, engine: Any) -> None:
        with pytest.raises(ConfigError, match="engine: must be an engine of sqlalchemy"):
            Observatory(engine=engine)
        app = Flask("shop")
        observatory = Observatory(app, engine=lambda: engine)
        with app.app_context(), pytest.raises(ConfigError, match="engine: must be an engine"):
            observatory.pool.stats()


def test_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flask", None)
    monkeypatch.delitem(sys.modules, "observatory_storage.flask")
    with pytest.raises(ConfigError) as raised:
        importlib.import_module("observatory_storage.flask")
    assert str(raised.value) == (
        "observatory_storage.flask needs the extra: pip install 'observatory-storage[flask]'"
    )


def test_creating_and_setting_up_needs_no_server() -> None:
    app = Flask("shop")
    app.config["OBSERVATORY_DATABASE_URL"] = "postgresql://app@127.0.0.1:1/nothing"
    observatory = Observatory(app)
    with app.app_context():
        assert isinstance(observatory.pool, StoragePool)
        observatory.close()
