"""A request has one unit of work, which begins with its first use and ends with the context."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask, g, stream_with_context

from observatory_storage import ConfigError, ReadOnly, StorageError
from observatory_storage.flask import Observatory
from tests.flask_extension.conftest import MakeApp

ADD_TRACE = sa.text(
    "INSERT INTO traces (id, trace_id, service_name, start_time)"
    " VALUES (md5('a')::uuid, md5('a'), 'shop', now())"
)


def stored(app: Flask, observatory: Observatory) -> int:
    with app.app_context():
        return len(observatory.uow.traces.list())


def connections_in_use(app: Flask, observatory: Observatory) -> int:
    with app.app_context():
        return observatory.pool.stats().active


def test_one_unit_of_work_a_request(app: Flask, observatory: Observatory) -> None:
    units = []

    @app.get("/")
    def view() -> str:
        units.append(observatory.uow)
        assert observatory.uow is units[-1]
        return str(len(observatory.uow.traces.list()))

    @app.get("/health")
    def health() -> str:
        assert "_observatory_uow" not in g
        return "well"

    client = app.test_client()
    assert client.get("/").text == client.get("/").text == "0"
    assert client.get("/health").text == "well"
    assert units[0] is not units[1]
    assert connections_in_use(app, observatory) == 0
    with pytest.raises(StorageError):
        units[0].session.execute(sa.text("SELECT 1"))


def test_what_is_committed_stays_and_all_else_is_rolled_back(
    app: Flask, observatory: Observatory
) -> None:
    @app.post("/<how>")
    def write(how: str) -> str:
        observatory.uow.session.execute(ADD_TRACE)
        if how == "commit":
            observatory.uow.commit()
        if how == "fail":
            raise LookupError(how)
        return how

    app.config["PROPAGATE_EXCEPTIONS"] = False
    client = app.test_client()
    assert client.post("/forget").status_code == 200
    assert client.post("/fail").status_code == 500
    assert stored(app, observatory) == 0
    assert client.post("/commit").status_code == 200
    assert stored(app, observatory) == 1
    assert connections_in_use(app, observatory) == 0


def test_an_error_of_sql_ends_with_its_request(app: Flask, observatory: Observatory) -> None:
    @app.get("/broken")
    def broken() -> str:
        observatory.uow.traces.list()
        with observatory.uow.session.connection() as connection:
            connection.exec_driver_sql("SELECT 1/0")
        return "never"

    @app.get("/")
    def view() -> str:
        return str(len(observatory.uow.traces.list()))

    app.config["PROPAGATE_EXCEPTIONS"] = False
    client = app.test_client()
    assert client.get("/broken").status_code == 500
    assert client.get("/").text == "0"


def test_errors_of_the_store_reach_error_handlers(app: Flask, observatory: Observatory) -> None:
    @app.errorhandler(StorageError)
    def not_found(error: StorageError) -> tuple[str, int]:
        return str(error), 404

    @app.get("/traces/<trace_id>")
    def view(trace_id: str) -> str:
        return observatory.uow.traces.get_by_trace_id(trace_id).service_name or ""

    answer = app.test_client().get("/traces/" + "ff" * 16)
    assert (answer.status_code, answer.text) == (404, f"there is no trace {'ff' * 16}")


def test_streaming_responses(app: Flask, observatory: Observatory) -> None:
    @app.get("/with-context")
    def with_context() -> Any:
        def lines() -> Iterator[str]:
            yield f"{len(observatory.uow.traces.list())}\n"
            yield f"{connections_in_use(app, observatory)}\n"

        return app.response_class(stream_with_context(lines()))

    @app.get("/without-context")
    def without_context() -> Any:
        uow = observatory.uow

        def lines() -> Iterator[str]:
            try:
                yield f"{len(uow.traces.list())}\n"
            except StorageError as error:
                yield f"{error}\n"

        return app.response_class(lines())

    client = app.test_client()
    with client.get("/with-context", buffered=False) as answer:
        assert answer.get_data(as_text=True) == "0\n1\n"
    assert connections_in_use(app, observatory) == 0
    assert "the unit of work has ended" in client.get("/without-context").text


def test_nested_contexts_have_units_of_their_own(app: Flask, observatory: Observatory) -> None:
    with app.app_context():
        outer = observatory.uow
        with app.app_context():
            assert observatory.uow is not outer
        assert observatory.uow is outer
        assert len(observatory.uow.traces.list()) == 0


def test_async_views(app: Flask, observatory: Observatory) -> None:
    pytest.importorskip("asgiref")

    @app.get("/")
    async def view() -> str:
        observatory.uow.session.execute(ADD_TRACE)
        return await commit()

    async def commit() -> str:
        observatory.uow.commit()
        return str(len(observatory.uow.traces.list()))

    assert app.test_client().get("/").text == "1"
    assert stored(app, observatory) == 1
    assert connections_in_use(app, observatory) == 0


def test_lost_connection_does_not_keep_the_context_open(
    app: Flask, observatory: Observatory, caplog: pytest.LogCaptureFixture
) -> None:
    @app.get("/")
    def view() -> str:
        session = observatory.uow.session
        backend = session.scalar(sa.text("SELECT pg_backend_pid()"))
        with observatory.pool.engine.connect() as other:
            other.execute(sa.text("SELECT pg_terminate_backend(:pid, 60000)"), {"pid": backend})
        return "answered"

    with caplog.at_level(logging.ERROR):
        assert app.test_client().get("/").text == "answered"
    assert connections_in_use(app, observatory) == 0
    assert stored(app, observatory) == 0


def test_another_unit_of_work_of_a_request_only_reads(
    make_app: MakeApp, observatory: Observatory, database_url: str
) -> None:
    app = make_app(OBSERVATORY_DATABASE_READ_URL=database_url)

    @app.get("/")
    def view() -> str:
        assert observatory.read_uow is observatory.read_uow is not observatory.uow
        with pytest.raises(ReadOnly):
            observatory.read_uow.traces.delete_user("nobody")
        return str(len(observatory.read_uow.traces.list()))

    assert app.test_client().get("/").text == "0"
    assert connections_in_use(app, observatory) == 0
    with app.app_context():
        read = observatory.pool.stats().read
        assert read is not None
        assert (read.size, read.active) == (1, 0)


def test_an_engine_of_the_application_may_be_that_of_a_replica(database_url: str) -> None:
    url = f"postgresql+psycopg://{database_url.partition('://')[2]}"
    engine, read_engine = sa.create_engine(url), sa.create_engine(url)
    app = Flask("shop")
    observatory = Observatory(app, engine=engine, read_engine=lambda: read_engine)
    with app.app_context():
        assert observatory.pool.has_read_server
        assert len(observatory.read_uow.traces.list()) == 0
        with pytest.raises(ReadOnly):
            observatory.read_uow.traces.delete_user("nobody")
    assert read_engine.pool.checkedin() == 1  # type: ignore[attr-defined]  # it is a QueuePool
    assert engine.pool.checkedin() == 0  # type: ignore[attr-defined]  # as above
    with read_engine.begin() as connection:  # the application's own use has not changed
        connection.execute(ADD_TRACE)
    with app.app_context():
        observatory.close()
    with pytest.raises(ConfigError, match="read_engine: needs engine"):
        Observatory(read_engine=read_engine)
    read_engine.dispose()
    engine.dispose()
