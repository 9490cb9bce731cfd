"""OTLP over HTTP: what senders may send, what they are answered, and what is stored."""

from __future__ import annotations

import gzip
import io
import json
import logging
import sys
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from backports import zstd
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from observatory_storage import (
    StoragePool,
    otlp_app,
)
from tests.commands import ACCEPTED, logs_request, metrics_request, rows, traces_request
from tests.otlp.otlp import as_message
from tests.web.wsgi_client import JSON, PROTOBUF, Unreadable, post

REQUESTS = {"traces": traces_request(), "metrics": metrics_request(), "logs": logs_request()}

REQUESTS = {"traces": traces_request(), "metrics": metrics_request(), "logs": logs_request()}


def protobuf(signal: str, request: Any) -> bytes:
    return as_message(signal, request).SerializeToString()


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
