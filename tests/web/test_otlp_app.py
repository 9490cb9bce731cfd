"""OTLP over HTTP: what senders may send, what they are answered, and what is stored."""

from __future__ import annotations

import gzip
import io
import json
import logging
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import psycopg
import pytest
from backports import zstd
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

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
from tests.web.wsgi_client import JSON, PROTOBUF, Answer, post

REQUESTS = {"traces": traces_request(), "metrics": metrics_request(), "logs": logs_request()}


def protobuf(signal: str, request: Any) -> bytes:
    return as_message(signal, request).SerializeToString()


@pytest.fixture
def nowhere() -> Iterator[StoragePool]:
    """A pool that can do nothing: what is refused must not get as far as the database."""
    config = StorageConfig(postgres=PostgresConfig(host="127.0.0.1", port=1))
    with StoragePool(config, connect=False) as pool:
        yield pool


class Unreadable:
    """A body that must not be read."""

    def read(self, *_: object) -> bytes:
        raise AssertionError

    readline = readlines = __iter__ = read


@pytest.mark.parametrize("content_type", [JSON, PROTOBUF, "Application/JSON ; Charset=UTF-8"])
def test_all_signals_are_stored(pool: StoragePool, database_url: str, content_type: str) -> None:
    app = otlp_app(pool)
    encode: Callable[..., Any] = protobuf if content_type == PROTOBUF else lambda _, value: value
    for _ in range(2):
        for signal, request in REQUESTS.items():
            answer = post(app, f"/v1/{signal}", encode(signal, request), content_type)
            assert answer.status == "200 OK"
            assert answer.headers["Content-Type"] == (
                PROTOBUF if content_type == PROTOBUF else JSON
            )
            assert answer.body == (b"" if content_type == PROTOBUF else b"{}")
        assert rows(database_url) == ACCEPTED


@pytest.mark.parametrize(
    ("coding", "compress"),
    [
        ("gzip", gzip.compress),
        ("zstd", zstd.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda data: zlib.compress(data, wbits=-15)),
        ("identity", bytes),
    ],
)
@pytest.mark.parametrize("terminated", [True, False])
def test_compressed_bodies(
    pool: StoragePool,
    database_url: str,
    coding: str,
    compress: Callable[[bytes], bytes],
    terminated: bool,
) -> None:
    body = compress(protobuf("traces", traces_request()))
    variables: dict[str, Any] = {"HTTP_CONTENT_ENCODING": coding}
    if terminated:  # a chunked body, as servers that support them pass it on
        variables |= {"wsgi.input_terminated": True, "CONTENT_LENGTH": None}
    assert post(otlp_app(pool), "/v1/traces", body, PROTOBUF, **variables).code == 200
    assert rows(database_url)["spans"] == ACCEPTED["spans"]


def test_body_ends_with_its_length(pool: StoragePool, database_url: str) -> None:
    # What follows on the connection is the next request: reading it would wait forever.
    body = json.dumps(logs_request()).encode()
    stream = io.BytesIO(body + b"POST /v1/logs HTTP/1.1")
    assert post(otlp_app(pool), "/v1/logs", body, stream=stream).code == 200
    assert stream.tell() == len(body)
    assert rows(database_url)["logs"] == ACCEPTED["logs"]


@pytest.mark.parametrize("content_type", [JSON, PROTOBUF])
def test_empty_request_is_a_success(pool: StoragePool, content_type: str) -> None:
    body = b"" if content_type == PROTOBUF else b"{}"
    for signal in REQUESTS:
        answer = post(otlp_app(pool), f"/v1/{signal}", body, content_type)
        assert (answer.code, answer.body) == (200, body)


def test_partial_success_is_in_the_encoding_of_the_sender(
    pool: StoragePool, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    request: Any = traces_request()
    request["resourceSpans"][0]["scopeSpans"][0]["spans"][1]["spanId"] = "0102"
    app = otlp_app(pool)
    with caplog.at_level(logging.WARNING, "observatory_storage"):
        answer = post(app, body=request)
        message = post(app, body=protobuf("traces", request), content_type=PROTOBUF)
    assert (answer.code, message.code) == (200, 200)
    partial = json.loads(answer.body)["partialSuccess"]
    assert partial["rejectedSpans"] == "1"
    assert "spanId" in partial["errorMessage"]
    parsed = ExportTraceServiceResponse.FromString(message.body).partial_success
    assert parsed.rejected_spans == 1
    assert "span" in parsed.error_message
    assert caplog.text.count("rejected 1 of 5 items of a request of traces") == 2
    assert rows(database_url)["spans"] == ACCEPTED["spans"] - 1


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}}", b'{"resourceSpans": 3}', b"\xff"])
def test_bad_json_is_told_in_json(nowhere: StoragePool, body: bytes) -> None:
    answer = post(otlp_app(nowhere), body=body)
    assert (answer.code, answer.headers["Content-Type"]) == (400, JSON)
    status = json.loads(answer.body)
    assert status["code"] == 3  # INVALID_ARGUMENT
    (detail,) = status["details"]
    assert detail["@type"] == "type.googleapis.com/google.rpc.BadRequest"
    (violation,) = detail["fieldViolations"]
    assert violation["description"] in status["message"]
    assert "Retry-After" not in answer.headers


@pytest.mark.parametrize("body", [b"\n\xff\xff", b"\x0a\x7f", b"hello"])
def test_bad_protobuf_is_told_in_protobuf(nowhere: StoragePool, body: bytes) -> None:
    answer = post(otlp_app(nowhere), body=body, content_type=PROTOBUF)
    assert (answer.code, answer.headers["Content-Type"]) == (400, PROTOBUF)
    status = Status.FromString(answer.body)
    assert status.code == 3
    (detail,) = status.details
    bad = BadRequest()
    assert detail.Unpack(bad)
    (violation,) = bad.field_violations
    assert violation.field == "payload"
    assert violation.description in status.message


def test_body_must_be_in_the_encoding_that_its_type_names(nowhere: StoragePool) -> None:
    app = otlp_app(nowhere)
    answer = post(app, body=protobuf("traces", traces_request()), content_type=JSON)
    assert (answer.code, "must be JSON" in answer.message) == (400, True)
    answer = post(app, body=traces_request(), content_type=PROTOBUF)
    assert (answer.code, "must be protobuf" in answer.message) == (400, True)
    assert post(app, body=b"").code == 400


def test_another_signal_is_refused(nowhere: StoragePool) -> None:
    app = otlp_app(nowhere)
    assert "is one of logs" in post(app, body=logs_request()).message
    logs = protobuf("logs", logs_request())
    assert "is one of logs" in post(app, body=logs, content_type=PROTOBUF).message


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/traces/", "/v1/profiles", "/V1/TRACES"])
def test_unknown_path(nowhere: StoragePool, path: str) -> None:
    answer = post(otlp_app(nowhere), path, stream=Unreadable())
    assert answer.status == "404 Not Found"
    assert "/v1/traces, /v1/metrics, /v1/logs" in answer.message


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_wrong_method(nowhere: StoragePool, method: str) -> None:
    answer = post(otlp_app(nowhere), "/v1/logs", method=method, stream=Unreadable())
    assert (answer.code, answer.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/x-protobuf2", f"{JSON}; charset=latin-1"]
)
def test_wrong_type(nowhere: StoragePool, content_type: str) -> None:
    answer = post(otlp_app(nowhere), body=b"{}", content_type=content_type, stream=Unreadable())
    assert answer.code == 415
    assert "must be" in answer.message


def test_unknown_coding(nowhere: StoragePool) -> None:
    variables = {"HTTP_CONTENT_ENCODING": "br"}
    answer = post(otlp_app(nowhere), content_type=PROTOBUF, stream=Unreadable(), **variables)
    assert (answer.code, answer.headers["Content-Type"]) == (415, PROTOBUF)
    assert answer.headers["Accept-Encoding"] == "gzip, zstd, deflate"


def test_zstd_without_the_extra(nowhere: StoragePool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    answer = post(otlp_app(nowhere), body=b"x", HTTP_CONTENT_ENCODING="zstd")
    assert (answer.code, answer.headers["Accept-Encoding"]) == (415, "gzip, deflate")


def test_damaged_compression_is_a_bad_request(nowhere: StoragePool) -> None:
    for body in (b"hello", gzip.compress(b"{}")[:-3]):
        answer = post(otlp_app(nowhere), body=body, HTTP_CONTENT_ENCODING="gzip")
        assert (answer.code, "cannot be decompressed" in answer.message) == (400, True)


def test_body_at_the_bound_and_above_it(pool: StoragePool) -> None:
    body = json.dumps(span_request()).encode()
    app, small = (otlp_app(pool, max_body_bytes=len(body) - less) for less in (0, 1))
    chunked: dict[str, Any] = {"wsgi.input_terminated": True, "CONTENT_LENGTH": None}
    packed = gzip.compress(body)
    for sent, variables in (
        (body, {}),
        (body, chunked),
        (packed, {"HTTP_CONTENT_ENCODING": "gzip"}),
        (packed, {"HTTP_CONTENT_ENCODING": "gzip", **chunked}),
    ):
        assert post(app, body=sent, **variables).code == 200
        answer = post(small, body=sent, **variables)
        assert answer.code == 413
        assert f"more than {len(body) - 1} bytes" in answer.message


@pytest.mark.parametrize("content_type", [JSON, PROTOBUF])
@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress, zlib.compress])
def test_compressed_body_without_its_coding_is_refused(
    nowhere: StoragePool, content_type: str, compress: Callable[[bytes], bytes]
) -> None:
    # Else the bound of the application would not hold.
    bomb = compress(bytes(1_000_000))
    app = otlp_app(nowhere, max_body_bytes=100_000)
    for variables in ({}, {"HTTP_CONTENT_ENCODING": "identity"}):
        answer = post(app, body=bomb, content_type=content_type, **variables)
        assert (answer.code, "needs a Content-Encoding" in answer.message) == (400, True)
    packed = gzip.compress(bomb)
    answer = post(app, body=packed, content_type=content_type, HTTP_CONTENT_ENCODING="gzip")
    assert (answer.code, "needs a Content-Encoding" in answer.message) == (400, True)


def test_body_that_says_that_it_is_too_large_is_not_read(nowhere: StoragePool) -> None:
    length = str(64 * 1024 * 1024 + 1)
    answer = post(otlp_app(nowhere), stream=Unreadable(), CONTENT_LENGTH=length)
    assert answer.code == 413


@pytest.mark.parametrize("length", ["-1", "ten", "1.5", "+1", "٣"])
def test_length_that_is_no_number(nowhere: StoragePool, length: str) -> None:
    app = otlp_app(nowhere)

    def call(environ: dict[str, Any], start_response: Any) -> Any:
        environ["CONTENT_LENGTH"] = length  # which the validator would not let pass
        return app(environ, start_response)

    assert post(call, stream=Unreadable()).code == 400


def test_body_that_ends_early(nowhere: StoragePool) -> None:
    body = json.dumps(logs_request()).encode()
    answer = post(otlp_app(nowhere), "/v1/logs", body, CONTENT_LENGTH=str(len(body) + 1))
    assert answer.code == 400
    assert f"ends after {len(body)} of {len(body) + 1} bytes" in answer.message


def test_chunked_body_on_a_server_without_support_for_it(nowhere: StoragePool) -> None:
    answer = post(
        otlp_app(nowhere),
        stream=Unreadable(),
        CONTENT_LENGTH=None,
        HTTP_TRANSFER_ENCODING="chunked",
    )
    assert answer.code == 411


def test_errors_of_the_server_while_reading_are_left_to_it(nowhere: StoragePool) -> None:
    class Lost:
        def read(self, *_: object) -> bytes:
            raise ConnectionResetError

        readline = readlines = __iter__ = read

    with pytest.raises(ConnectionResetError):
        post(otlp_app(nowhere), body=b"{}", stream=Lost())


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
