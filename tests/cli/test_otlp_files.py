"""`ingest`: compressed files, and what the file exporter of the OpenTelemetry Collector writes."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from backports import zstd

from observatory_storage.cli.otlp_files import Payload, payloads
from observatory_storage.errors import ValidationError
from tests.commands import (
    ACCEPTED,
    Run,
    lines,
    logs_request,
    metrics_request,
    rows,
    traces_request,
)
from tests.otlp.otlp import as_message

REQUESTS = {"traces": traces_request(), "metrics": metrics_request(), "logs": logs_request()}
BOUND = 100_000


def in_protobuf() -> list[bytes]:
    return [as_message(name, request).SerializeToString() for name, request in REQUESTS.items()]


def in_json() -> list[bytes]:
    return [json.dumps(request).encode() for request in REQUESTS.values()]


def with_lengths(messages: Iterable[bytes]) -> bytes:
    """As the collector's exportMessageAsBuffer writes them."""
    return b"".join(len(message).to_bytes(4, "big") + message for message in messages)


def in_frames(content: bytes) -> bytes:
    """As the collector writes a compressed stream: a frame is ended at each flush."""
    return zstd.compress(content[:1000]) + zstd.compress(content[1000:])


# How the collector's exporter writes files: `format`, `compression`, and whether the feature gate
# exporter.file.nativeCompression is on, which compresses the file and not each message.
COLLECTOR = {
    "json": lines(*REQUESTS.values()),
    "json, zstd": with_lengths(map(zstd.compress, in_json())),
    "json, zstd, native": in_frames(lines(*REQUESTS.values())),
    "proto": with_lengths(in_protobuf()),
    "proto, zstd": with_lengths(map(zstd.compress, in_protobuf())),
    "proto, zstd, native": in_frames(with_lengths(in_protobuf())),
}
COMPRESSIONS: list[Callable[[bytes], bytes]] = [gzip.compress, zstd.compress, zlib.compress]


@pytest.mark.parametrize("written", COLLECTOR)
def test_files_of_the_collector(ingest: Run, database_url: str, written: str) -> None:
    for _ in range(2):
        (report,) = ingest("-", "--json", stdin=COLLECTOR[written]).lines
        assert report["requests"] == 3
        assert report["accepted"] == ACCEPTED
        assert report["problems"] == []
        assert rows(database_url) == ACCEPTED


def test_compressed_files_whatever_they_are_called(
    ingest: Run, database_url: str, tmp_path: Path
) -> None:
    metrics, logs = json.dumps(metrics_request(), indent=1).encode(), in_protobuf()[2]
    (tmp_path / "lines.jsonl.gz").write_bytes(gzip.compress(lines(traces_request())))
    (tmp_path / "metrics.json.zst").write_bytes(zstd.compress(metrics))
    (tmp_path / "logs").write_bytes(zlib.compress(logs))
    result = ingest("lines.jsonl.gz", "metrics.json.zst", "logs")
    assert result.code == 0, result.err
    assert rows(database_url) == ACCEPTED


def read(content: bytes, bound: int = BOUND) -> list[Payload]:
    return list(payloads(io.BytesIO(content), lambda _: None, bound))


def read_errors(content: bytes, bound: int = BOUND) -> dict[str, str]:
    """The errors by the place of the payload."""
    found = read(content, bound)
    return {
        payload.place: str(payload.content)
        for payload in found
        if isinstance(payload.content, ValidationError)
    }


@pytest.mark.parametrize("compress", [bytes, *COMPRESSIONS])
def test_requests_have_their_places(compress: Callable[[bytes], bytes]) -> None:
    first, second, third = in_json()
    content = b"\xef\xbb\xbf\n" + first + b"\n\n" + second + b"\r\n" + third
    assert read(compress(content)) == [
        Payload(":2", first),
        Payload(":4", second),
        Payload(":5", third),
    ]
    messages = in_protobuf()
    assert read(compress(with_lengths([b"", *messages]))) == [
        Payload(f" (message {number})", message) for number, message in enumerate(messages, 2)
    ]
    for message in messages:
        assert read(compress(message)) == [Payload("", message)]
    pretty = json.dumps(REQUESTS["logs"], indent=2).encode()
    assert read(compress(pretty)) == [Payload(":1", pretty)]
    assert read(compress(b" \n\n")) == []
    assert read(compress(b"")) == []


@pytest.mark.parametrize("size", [1, 9, 10, 13, 32, 91, 120, 123, 255, 2570, 2573, 31_627])
def test_length_of_a_message_is_not_taken_for_another_format(size: int) -> None:
    message = b"\n" + bytes(size - 1)
    assert [payload.content for payload in read(with_lengths([message] * 2))] == [message] * 2


def test_number_of_read_bytes_is_that_of_the_file() -> None:
    for content in (gzip.compress(lines(*REQUESTS.values())), COLLECTOR["proto"]):
        counted: list[int] = []
        assert len(list(payloads(io.BytesIO(content), counted.append, BOUND))) == 3
        assert sum(counted) == len(content)


@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_request_larger_than_the_bound_costs_only_itself(
    compress: Callable[[bytes], bytes],
) -> None:
    first, *_, last = in_json()
    bound = max(len(first), len(last))
    long = b'{"x": "' + b"y" * bound + b'"}'
    assert read_errors(compress(b"\n".join([first, long, last, long])), bound).keys() == {
        ":2",
        ":4",
    }
    assert read_errors(compress(long), bound).keys() == {":1"}
    assert read(compress(b"\n".join([long, first])), bound)[1:] == [Payload(":2", first)]
    assert read_errors(compress(b"\n" + bytes(bound)), bound).keys() == {""}
    # A file that is not compressed is as large as it is.
    assert read_errors(b"\n".join([first, long, last, long]), bound) == {}


def test_message_larger_than_the_bound_costs_only_itself() -> None:
    first, second, third = in_json()
    bomb = zstd.compress(bytes(BOUND + 1))
    found = read(with_lengths([first, bomb, second[:-9], zstd.compress(third), b"\x1f\x8bno"]))
    assert [payload.content for payload in found if isinstance(payload.content, bytes)] == [
        first,
        second[:-9],
        third,
    ]
    assert [payload.place for payload in found if not isinstance(payload.content, bytes)] == [
        " (message 2)",
        " (message 5)",
    ]


def test_file_that_ends_within_a_message_keeps_the_earlier_ones() -> None:
    whole = with_lengths(in_protobuf())
    for end in (len(whole) - 1, len(whole) - len(in_protobuf()[2]) - 1):
        assert len(read(whole[:end])) == 3
        assert read_errors(whole[:end]).keys() == {" (message 3)"}
    (error,) = read_errors(b"\x07\xff\xff\xff" + whole).values()
    assert "is the length of a message, and is more than" in error


def test_bomb_in_a_file_does_not_fill_memory() -> None:
    bomb = gzip.compress(bytes(50_000_000).replace(b"\0", b"{", 1))
    tracemalloc.start()
    try:
        assert len(read_errors(bomb)) == 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000


@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_damaged_file_keeps_what_could_be_read(
    ingest: Run, database_url: str, tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    # Random text after the first requests, so that the cut lies behind them.
    rest = b"\n" + json.dumps({"x": [str(number) for number in range(300_000)]}).encode()
    (tmp_path / "cut.gz").write_bytes(compress(lines(*REQUESTS.values()) + rest)[:-1000])
    (tmp_path / "good.json").write_text(json.dumps(logs_request()))
    result = ingest("cut.gz", "good.json")
    assert result.code == 1
    assert "error: cut.gz: " in result.err
    assert "cannot be decompressed: " in result.err
    assert rows(database_url) == ACCEPTED


def test_the_bound_is_an_option(ingest: Run, database_url: str) -> None:
    content = gzip.compress(lines(*REQUESTS.values()))
    result = ingest("-", "--max-request-bytes", "10", stdin=content)
    assert result.code == 1
    assert "more than 10 bytes" in result.err
    assert ingest("-", "--max-request-bytes", "0", stdin=content).code == 2
    assert rows(database_url) == dict.fromkeys(ACCEPTED, 0)


def test_zstd_without_the_extra_costs_only_its_file(
    ingest: Run, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.zst").write_bytes(zstd.compress(lines(traces_request())))
    (tmp_path / "b").write_bytes(with_lengths([zstd.compress(in_json()[0]), in_json()[1]]))
    (tmp_path / "c.json").write_text(json.dumps(logs_request()))
    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    result = ingest("a.zst", "b", "c.json")
    assert result.code == 1
    assert result.err.count("pip install 'observatory-storage[zstd]'") == 2
    assert rows(database_url)["logs"] == ACCEPTED["logs"]


def test_pipe_is_read_as_it_comes() -> None:
    """A line is ingested before the writer of the pipe ends."""

    class Pipe(io.BytesIO):
        asked = 0

        def read1(self, size: Any = -1, /) -> bytes:
            self.asked += 1
            return self.readline() or b""

    pipe = Pipe(lines(*REQUESTS.values()))
    requests = payloads(pipe, lambda _: None, BOUND)
    next(requests)
    assert pipe.asked < 3
