"""OTLP over HTTP where the database fails, or `authorize` refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis
import psycopg
import pytest
from hypothesis import strategies as st

from observatory_embedded import EmbeddedPostgres
from observatory_storage import (
    PostgresConfig,
    RetryConfig,
    StorageConfig,
    StoragePool,
    ValidationError,
    otlp_app,
)
from observatory_storage.errors import ConnectionLost, StorageError, Timeout
from tests.commands import ACCEPTED, logs_request, metrics_request, rows, traces_request
from tests.otlp.otlp import as_message
from tests.otlp.samples import span_request
from tests.web.wsgi_client import JSON, PROTOBUF, Answer, Unreadable, post

REQUESTS = {"traces": traces_request(), "metrics": metrics_request(), "logs": logs_request()}


def protobuf(signal: str, request: Any) -> bytes:
    return as_message(signal, request).SerializeToString()


def test_unreachable_database_asks_to_try_again(
    embedded_server: EmbeddedPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    postgres = PostgresConfig.from_url(embedded_server.url)
    config = StorageConfig(postgres=postgres, retry=RetryConfig(max_attempts=1))
    with StoragePool(config) as pool:
        pool.run_migrations()
        app = otlp_app(pool)
        embedded_server.stop()
        bodies = {JSON: traces_request(), PROTOBUF: protobuf("traces", traces_request())}
        for content_type, body in bodies.items():
            answer = post(app, body=body, content_type=content_type)
            assert answer.status == "503 Service Unavailable"
            assert answer.headers["Content-Type"] == content_type
            assert int(answer.headers["Retry-After"]) > 0
            assert answer.message == "the database is not available; try again"
        assert "ConnectionLost" in caplog.text
        embedded_server.start()
        assert post(app, body=traces_request()).code == 200


def test_schema_that_is_not_migrated_is_not_retried(
    empty_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = StorageConfig(postgres=PostgresConfig.from_url(empty_database_url))
    with StoragePool(config) as pool:
        answer = post(otlp_app(pool), body=traces_request())
    assert (answer.code, "Retry-After" in answer.headers) == (500, False)
    assert "trace" not in answer.message  # the names of tables are for the log
    assert "observatory-storage migrate" in caplog.text


def call_authorized(pool: StoragePool, authorize: Callable[[Any], Any]) -> Answer:
    app = otlp_app(pool, authorize=authorize)
    return post(app, body=b"x", content_type=PROTOBUF, stream=Unreadable())


def test_authorize_is_asked_before_anything_else(nowhere: StoragePool) -> None:
    asked = []

    def refuse(environ: Any) -> bool:
        asked.append((environ["PATH_INFO"], environ["REQUEST_METHOD"]))
        return False

    app = otlp_app(nowhere, authorize=refuse)
    for path, method in (("/v1/traces", "POST"), ("/v1/traces", "GET"), ("/unknown", "POST")):
        answer = post(app, path, method=method, content_type=PROTOBUF, stream=Unreadable())
        assert answer.status == "401 Unauthorized"
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.headers["Content-Type"] == PROTOBUF
        assert asked.pop() == (path, method)


def test_authorize_may_forbid(nowhere: StoragePool) -> None:
    def forbid(_: Any) -> bool:
        raise PermissionError("this project is archived")

    answer = call_authorized(nowhere, forbid)
    assert answer.status == "403 Forbidden"
    assert answer.message == "this project is archived"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConnectionLost("away"), 503),
        (Timeout("slow"), 503),
        (StorageError("broken"), 500),
        (KeyError("header"), 500),
    ],
)
def test_error_in_authorize_lets_nothing_pass(
    nowhere: StoragePool, error: Exception, code: int
) -> None:
    def fail(_: Any) -> bool:
        raise error

    answer = call_authorized(nowhere, fail)
    assert answer.code == code
    assert str(error) not in answer.message


def test_authorize_that_returns_nothing_lets_nothing_pass(nowhere: StoragePool) -> None:
    assert call_authorized(nowhere, lambda _: None).code == 401


def test_authorized_requests_pass(pool: StoragePool, database_url: str) -> None:
    app = otlp_app(pool, authorize=lambda environ: environ["HTTP_X_KEY"] == "1")
    assert post(app, body=traces_request(), HTTP_X_KEY="2").code == 401
    assert post(app, body=traces_request(), HTTP_X_KEY="1").code == 200
    assert rows(database_url)["spans"] == ACCEPTED["spans"]


@pytest.mark.parametrize("bound", [0, -1, True])
def test_bound_must_be_positive(nowhere: StoragePool, bound: int) -> None:
    with pytest.raises(ValidationError, match="max_body_bytes"):
        otlp_app(nowhere, max_body_bytes=bound)


def test_a_request_is_committed_when_it_is_answered(pool: StoragePool, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        for number in range(3):
            request = span_request(spanId=f"{number + 1:016x}")
            assert post(otlp_app(pool), body=request).code == 200
            found = connection.execute("SELECT count(*) FROM trace_spans").fetchone()
            connection.rollback()
            assert found == (number + 1,)


@hypothesis.given(
    body=st.binary(max_size=60),
    beginning=st.sampled_from([b"", b"{", b"\n", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"x\x9c"]),
    coding=st.sampled_from(["", "gzip", "zstd", "deflate", "deflate, gzip", "identity"]),
    content_type=st.sampled_from([JSON, PROTOBUF]),
    terminated=st.booleans(),
)
@hypothesis.settings(max_examples=300)
def test_any_body_gets_an_answer_that_is_the_fault_of_the_sender(
    body: bytes, beginning: bytes, coding: str, content_type: str, terminated: bool
) -> None:
    config = StorageConfig(postgres=PostgresConfig(host="127.0.0.1", port=1))
    variables: dict[str, Any] = {"HTTP_CONTENT_ENCODING": coding}
    if terminated:
        variables |= {"wsgi.input_terminated": True, "CONTENT_LENGTH": None}
    with StoragePool(config, connect=False) as pool:
        answer = post(otlp_app(pool), "/v1/logs", beginning + body, content_type, **variables)
    # 200 is for what has no items.
    assert answer.code in (200, 400)
    assert answer.headers["Content-Type"] == content_type
    if answer.code == 400:
        assert answer.message
