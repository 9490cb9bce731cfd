"""Which payloads are accepted as requests, and which are refused."""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from observatory_storage.errors import ConfigError, ValidationError
from observatory_storage.otlp.decode import decode, detect_signal
from observatory_storage.otlp.json_reader import as_json
from observatory_storage.otlp.logs import log_rows
from observatory_storage.otlp.resource_scope import groups
from observatory_storage.otlp.signals import LOG_SIGNAL, METRIC_SIGNAL, SIGNALS, TRACE_SIGNAL
from observatory_storage.otlp.traces import span_rows
from tests.otlp.otlp import KEYS, REQUESTS
from tests.otlp.samples import (
    log_request,
    metric_request,
    request_of,
    span_request,
)


def items(payload: Any, signal: Any) -> list[Any]:
    """The items of a request as parsed OTLP/JSON."""
    return [
        as_json(item)
        for group in groups(decode(payload, signal), signal.keys)
        for item in group.items
    ]


SAMPLES = {"traces": span_request(), "metrics": metric_request(), "logs": log_request()}


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.name)
def test_signal_is_recognised_in_every_encoding(signal: Any) -> None:
    request = SAMPLES[signal.name]
    message = request_of(signal.name, request)
    text = json.dumps(request)
    forms = (request, text, text.encode(), f"\ufeff{text}".encode(), f" \n{text}\n".encode())
    for form in (*forms, message, message.SerializeToString()):
        assert detect_signal(form) == signal.name
        assert len(items(form, signal)) == 1


@pytest.mark.parametrize("given", SIGNALS, ids=lambda signal: signal.name)
@pytest.mark.parametrize("wanted", SIGNALS, ids=lambda signal: signal.name)
def test_error_names_the_signal_of_a_request_with_another_signal(given: Any, wanted: Any) -> None:
    if given is wanted:
        return
    message = request_of(given.name, SAMPLES[given.name])
    for form in (SAMPLES[given.name], message, message.SerializeToString()):
        with pytest.raises(ValidationError, match=f"of {wanted.name}, and is one of {given.name}"):
            decode(form, wanted)


@pytest.mark.parametrize(
    ("payload", "rule"),
    [
        ("", "JSON"),
        ("hello", "JSON"),
        ("[]", "OTLP request"),
        (b"[1]", "OTLP request"),
        (b"null", "OTLP request"),
        (b"hello", "JSON"),
        (b" ", "blank"),
        (b"\n\n", "OTLP request"),
        (b"\n\xff\xff\xff\xff\xff", "OTLP request"),
        (b"\x1f\x8b\x08\x00 gzip", "cannot be decompressed"),
        (b'{"resourceSpans": [', "JSON"),
        ({"spans": []}, "must have one of resourceSpans"),
        ({"resource_spans": []}, "must have one of resourceSpans"),
        ({"resourceSpans": [], "resourceLogs": []}, "one signal, not traces and logs"),
        ({"resourceSpans": {}}, "must be an array"),
        ({"resourceSpans": [1]}, "must be an object"),
        ({"resourceSpans": [{"scopeSpans": [5]}]}, "must be an object"),
        ({"resourceSpans": [{"scopeSpans": [{"spans": 1}]}]}, "must be an array"),
        (None, "OTLP request"),
        (7, "OTLP request"),
        (Span(), "must be one of opentelemetry.proto.collector"),
    ],
)
def test_payload_that_is_not_otlp_is_refused(payload: Any, rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        list(span_rows(decode(payload, TRACE_SIGNAL)))


def test_empty_request_is_accepted() -> None:
    for payload in ("{}", {}, b"", REQUESTS["traces"](), {"resourceSpans": None}):
        assert not items(payload, TRACE_SIGNAL)
    for payload in ("{}", b""):
        with pytest.raises(ValidationError):
            detect_signal(payload)


def test_json_and_protobuf_with_the_same_first_bytes_are_distinguished() -> None:
    # With a first message of 123 bytes, protobuf begins with "\n{", as JSON may.
    request = span_request()
    request["resourceSpans"][0]["schemaUrl"] = ""
    message = request_of("traces", request)
    resource_spans = getattr(message, KEYS["traces"][0])[0]
    while resource_spans.ByteSize() < 123:
        resource_spans.schema_url += "x"
    payload = message.SerializeToString()
    assert payload[:2] == b"\n{"
    assert detect_signal(payload) == "traces"
    assert detect_signal(b"\n" + json.dumps(request).encode()) == "traces"


def test_file_format_of_the_collector_is_accepted() -> None:
    data = TracesData()
    data.ParseFromString(request_of("traces", SAMPLES["traces"]).SerializeToString())
    assert items(data, TRACE_SIGNAL) == items(request_of("traces", SAMPLES["traces"]), TRACE_SIGNAL)


def test_unknown_fields_of_a_newer_sender_are_ignored() -> None:
    request: Any = span_request(newField={"a": 1})
    request["resourceSpans"][0]["newField"] = 1
    assert detect_signal(request) == "traces"
    newer = request_of("traces", SAMPLES["traces"]).SerializeToString() + b"\xfa\x3e\x01x"
    assert items(newer, TRACE_SIGNAL)


def test_signal_is_recognised_even_if_all_spans_are_bad() -> None:
    message = request_of("traces", span_request(traceId="", spanId="0102"))
    assert items(message.SerializeToString(), TRACE_SIGNAL)


def test_lone_surrogates_in_json_text_are_accepted() -> None:
    text = json.dumps(log_request(body={"stringValue": "\ud800"}))
    (item,) = log_rows(decode(text, LOG_SIGNAL))
    assert item.row is not None
    assert item.row["body"] == "\ud800"


def test_error_for_protobuf_names_the_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = request_of("metrics", SAMPLES["metrics"]).SerializeToString()
    module = "opentelemetry.proto.collector.metrics.v1.metrics_service_pb2"
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"pip install 'observatory-storage\[otel\]'"):
        decode(payload, METRIC_SIGNAL)
    assert items(SAMPLES["metrics"], METRIC_SIGNAL)


def test_ids_of_protobuf_are_hex_and_bytes_of_attributes_stay_base64() -> None:
    request = span_request(attributes=[{"key": "traceId", "value": {"bytesValue": "AQID"}}])
    (span,) = items(request_of("traces", request), TRACE_SIGNAL)
    assert span["traceId"] == "5b8efff798038103d269b633813fc60c"
    assert (
        span["attributes"] == request["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"]
    )


@pytest.mark.parametrize(
    "request_",
    [
        {"resourceSpans": [{"scope_spans": []}]},
        {"resourceSpans": [{"instrumentationLibrarySpans": []}]},
    ],
)
def test_items_under_an_unknown_name_are_refused(request_: Any) -> None:
    with pytest.raises(ValidationError, match="must be named scopeSpans"):
        list(span_rows(request_))


def test_log_records_under_a_snake_case_name_are_refused() -> None:
    request: Any = {"resourceLogs": [{"scopeLogs": [{"log_records": []}]}]}
    with pytest.raises(ValidationError, match="must be named logRecords"):
        list(log_rows(request))


def test_error_says_that_ids_are_not_base64() -> None:
    for name, size in (("traceId", 16), ("spanId", 8)):
        ids = {"traceId": "1" * 32, "spanId": "1" * 16}
        ids[name] = base64.b64encode(bytes(range(1, size + 1))).decode()
        (item,) = span_rows({"resourceSpans": [{"scopeSpans": [{"spans": [ids]}]}]})
        assert "ids in hex, not in base64" in str(item.error)
