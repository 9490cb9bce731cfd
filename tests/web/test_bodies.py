"""Bodies of OTLP over HTTP: their bounds, their lengths, and ends that come too early."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from backports import zstd

from observatory_storage import (
    StoragePool,
    otlp_app,
)
from tests.commands import logs_request, metrics_request, traces_request
from tests.otlp.samples import span_request
from tests.web.wsgi_client import JSON, PROTOBUF, Unreadable, post

REQUESTS = {"traces": traces_request(), "metrics": metrics_request(), "logs": logs_request()}


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
