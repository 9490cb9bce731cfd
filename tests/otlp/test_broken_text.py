"""Texts that are not UTF-8 are repaired and counted. They cost nothing else of their request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

from observatory_storage import (
    StoragePool,
    detect_signal,
    export_logs,
    export_metrics,
    export_traces,
    ingest_logs,
    ingest_metrics,
    ingest_traces,
)
from observatory_storage.errors import ValidationError
from observatory_storage.otlp.broken_text import message_as_json, request_as_json
from observatory_storage.otlp.decode import decode
from observatory_storage.otlp.message_classes import textless_class
from observatory_storage.otlp.signals import SIGNALS
from tests.otlp.generated import requests
from tests.otlp.otlp import REQUESTS, meaning
from tests.otlp.samples import (
    SPAN_ID,
    TRACE_ID,
    log_request,
    metric_request,
    request_of,
    span,
    spans_request,
)
from tests.otlp.test_round_trip import QUICK, exported

INGEST: dict[str, Any] = {
    "traces": (ingest_traces, export_traces),
    "metrics": (ingest_metrics, export_metrics),
    "logs": (ingest_logs, export_logs),
}
MARK, BROKEN, REPAIRED = "BROKEN", b"BR\xe2\x82EN", "BR\N{REPLACEMENT CHARACTER}EN"
ENCODINGS = ("json", "protobuf")


def text_of(value: str) -> dict[str, Any]:
    return {"stringValue": value}


def everywhere(mark: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Requests with a text in each kind of place."""
    pairs = [{"key": "k", "value": text_of(mark)}]
    nested = {"kvlistValue": {"values": [{"key": mark, "value": {"intValue": 1}}]}}
    for fields in (
        {"name": mark},
        {"traceState": mark},
        {"status": {"message": mark, "code": 2}},
        {"attributes": pairs},
        {"attributes": [{"key": mark, "value": text_of("x")}]},
        {"attributes": [{"key": "k", "value": {"arrayValue": {"values": [nested]}}}]},
        {"events": [{"timeUnixNano": "5", "name": mark}]},
        {"events": [{"timeUnixNano": "5", "name": "e", "attributes": pairs}]},
        {"links": [{"traceId": TRACE_ID, "spanId": SPAN_ID, "traceState": mark}]},
    ):
        yield "traces", spans_request(span(spanId="00000000000000aa"), span(**fields))
    for where in ("resource", "scope"):
        request: Any = spans_request(span())
        holder = request["resourceSpans"][0]
        holder = holder if where == "resource" else holder["scopeSpans"][0]
        holder[where] = {**holder[where], "attributes": pairs}
        yield "traces", request
        request = spans_request(span())
        if where == "resource":
            request["resourceSpans"][0]["schemaUrl"] = mark
        else:
            request["resourceSpans"][0]["scopeSpans"][0]["schemaUrl"] = mark
        yield "traces", request
    for body in (text_of(mark), nested):
        yield "logs", log_request(body=body)
    yield "logs", log_request(eventName=mark, severityText=mark)
    yield "metrics", metric_request(description=mark)
    yield "metrics", metric_request(name=mark)
    exemplar = {"timeUnixNano": "5", "asInt": "1", "filteredAttributes": pairs}
    point = {"timeUnixNano": "5", "asInt": "1", "attributes": pairs, "exemplars": [exemplar]}
    yield "metrics", metric_request(gauge={"dataPoints": [point]})


def broken_bytes(signal: str, request: dict[str, Any], encoding: str) -> bytes:
    whole = (
        json.dumps(request).encode()
        if encoding == "json"
        else request_of(signal, request).SerializeToString()
    )
    assert MARK.encode() in whole
    return whole.replace(MARK.encode(), BROKEN)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("place", range(len(list(everywhere("")))))
def test_broken_text_is_repaired_and_counted(pool: StoragePool, place: int, encoding: str) -> None:
    signal, request = list(everywhere(MARK))[place]
    _, repaired = list(everywhere(REPAIRED))[place]
    ingest, export = INGEST[signal]
    payload = broken_bytes(signal, request, encoding)
    assert detect_signal(payload) == signal
    result = ingest(pool, payload)
    assert (result.rejected, result.dropped) == ([], [])
    assert result.accepted == sum(meaning(signal, [request]).values())
    assert result.repaired >= 1
    assert "repaired" in json.loads(result.to_otlp())["partialSuccess"]["errorMessage"]
    # Two bytes of a cut character are two replacements.
    twice = json.loads(json.dumps(repaired).replace("\\ufffd", "\\ufffd\\ufffd"))
    assert meaning(signal, export(pool)) == meaning(signal, [twice])
    again = ingest(pool, payload)
    assert again.duplicates == again.accepted == result.accepted


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_number_of_repairs_is_told(pool: StoragePool, encoding: str) -> None:
    pairs = [{"key": "a", "value": text_of(MARK)}, {"key": "b", "value": text_of(MARK)}]
    spans = [span(spanId=f"{number:016x}", attributes=pairs) for number in range(1, 4)]
    spans.append(span(name=MARK))
    payload = broken_bytes("traces", spans_request(*spans), encoding)
    result = ingest_traces(pool, payload)
    assert (result.accepted, result.repaired) == (4, 7)


def test_items_without_broken_texts_stay_messages() -> None:
    request = spans_request(span(), span(name=MARK))
    payload = broken_bytes("traces", request, "protobuf")
    (signal,) = (one for one in SIGNALS if one.name == "traces")
    decoded = decode(payload, signal)
    good, broken = decoded["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert good.name == "chat"
    assert broken["name"] == "BR\udce2\udc82EN"


def test_wrong_item_beside_broken_text_is_refused_alone(pool: StoragePool) -> None:
    for encoding in ENCODINGS:
        bad = span(name=MARK, endTimeUnixNano="1")
        result = ingest_traces(
            pool, broken_bytes("traces", spans_request(bad, span(name=MARK)), encoding)
        )
        assert (result.accepted, [one.index for one in result.rejected]) == (1, [0])
        assert "spans[0].end_time" in str(result.rejected[0].error)


@pytest.mark.parametrize("given_", REQUESTS)
@pytest.mark.parametrize("wanted", SIGNALS, ids=lambda signal: signal.name)
def test_signal_of_a_request_with_broken_text_is_recognised(given_: str, wanted: Any) -> None:
    pairs = [{"key": "k", "value": text_of(MARK)}]
    sample = {
        "traces": spans_request(span(traceId="00" * 15 + "01", name=MARK)),
        "metrics": metric_request(unit=MARK),
        "logs": log_request(attributes=pairs, severityText=MARK),
    }[given_]
    payload = broken_bytes(given_, sample, "protobuf")
    assert detect_signal(payload) == given_
    if wanted.name == given_:
        decode(payload, wanted)
    else:
        with pytest.raises(ValidationError):
            decode(payload, wanted)


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.name)
@QUICK
@given(data=st.data())
def test_requests_read_with_texts_as_bytes_are_the_same(signal: Any, data: Any) -> None:
    message: Message = data.draw(requests(signal.name, every_field=True))
    content = message.SerializeToString()
    kind = type(message)
    same = list(exported(signal.name, message))
    loose = textless_class(kind).FromString(content)
    assert list(exported(signal.name, request_as_json(loose, signal.keys))) == same
    assert list(exported(signal.name, message_as_json(kind, content))) == same


def test_bytes_that_are_no_message_are_an_error() -> None:
    with pytest.raises(DecodeError):
        message_as_json(REQUESTS["traces"], b"\x0a\xff")


def test_characters_as_java_writes_them_are_read(pool: StoragePool) -> None:
    """CESU-8: a character beyond the first plane as two surrogates of three bytes each."""
    text = json.dumps(spans_request(span(name=MARK))).encode()
    emoji = "\N{GRINNING FACE}".encode("utf-16-be")
    pair = b"".join(
        chr(int.from_bytes(emoji[at : at + 2], "big")).encode("utf-8", "surrogatepass")
        for at in (0, 2)
    )
    assert ingest_traces(pool, text.replace(MARK.encode(), pair)).accepted == 1
    (exported_,) = export_traces(pool)
    (found,) = exported_["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert found["name"] == "\N{GRINNING FACE}"
