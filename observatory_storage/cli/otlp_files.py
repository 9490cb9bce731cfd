"""The requests in files of OTLP, as exporters, `export` and the OpenTelemetry Collector write them.

What a file contains is read from its first bytes, never from its name:

- compressed data, which begins with the mark of gzip, zstd or zlib, of any of the others;
- messages with their length before them, in 4 bytes, as the collector's file exporter writes
  protobuf and, with ``compression: zstd``, each message compressed by itself;
- one request in JSON on each line, if the first line is a JSON document;
- else one request, in JSON or protobuf.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import orjson

from observatory_storage.errors import ValidationError
from observatory_storage.otlp.compression import (
    BodyTooLarge,
    Readable,
    damaged,
    damaged_errors,
    decompress,
    decompressing,
    detect_coding,
)

__all__ = ["Payload", "payloads"]

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_MARK_BYTES: Final = 4  # enough to recognise a compression, and the size of a length
_BUFFER_BYTES: Final = 256 * 1024
# A file in another format begins with 0x0A (protobuf), a blank (0x09 or more), a letter of JSON
# or the mark of a compression. So a smaller byte begins the length of a message, up to 150 MB.
_FIRST_BYTE_OF_OTHERS: Final = 0x09


@dataclass(frozen=True, slots=True)
class Payload:
    """One request.

    Attributes:
        place: where it is, as an error shows it after the file's name: ``":3"`` for a line; empty
            if the file is one request.
        content: the request, decompressed; or the error for which it cannot be read.
    """

    place: str
    content: bytes | ValidationError


def payloads(file: BinaryIO, advance: Callable[[int], None], max_bytes: int) -> Iterator[Payload]:
    """The requests of a file, one at a time. Only one is in memory.

    Args:
        file: the file, which need not be seekable.
        advance: called with the number of bytes that have been read.
        max_bytes: the bound on a request that was compressed. Others are as large as they are.

    Raises:
        ValidationError: the file cannot be decompressed.
        ConfigError: the file is in zstd, which is not installed.
    """
    source = _buffered(_Counting(file, advance))
    coding = detect_coding(source.peek(_MARK_BYTES)[:_MARK_BYTES])
    if coding is None:
        yield from _requests(source, None, max_bytes)
        return
    try:
        yield from _requests(_buffered(_Whole(decompressing(source, coding))), max_bytes, max_bytes)
    except damaged_errors() as error:
        raise damaged((coding,), error) from error


def _requests(
    source: io.BufferedReader, bound: int | None, max_message_bytes: int
) -> Iterator[Payload]:
    first = source.peek(1)[:1]
    if first and first[0] < _FIRST_BYTE_OF_OTHERS:
        return _messages(source, max_message_bytes)
    return _lines_or_one(source, bound)


def _messages(source: io.BufferedReader, max_bytes: int) -> Iterator[Payload]:
    number = 0
    while prefix := source.read(_MARK_BYTES):
        number += 1
        place = f" (message {number})"
        size = int.from_bytes(prefix, "big")
        if size > max_bytes:
            # Nothing that follows a wrong length can be found.
            rule = f"is the length of a message, and is more than {max_bytes} bytes"
            yield Payload(place, ValidationError("length", size, rule))
            return
        content = source.read(size)
        if len(prefix) < _MARK_BYTES or len(content) < size:
            yield Payload(place, ValidationError("length", size, "the file ends in the message"))
            return
        if content:
            yield Payload(place, _decompressed(content, max_bytes))


def _decompressed(content: bytes, max_bytes: int) -> bytes | ValidationError:
    try:
        return decompress(content, max_bytes=max_bytes)
    except ValidationError as error:
        return error


def _lines_or_one(source: io.BufferedReader, bound: int | None) -> Iterator[Payload]:
    """The requests of a file that has one on each line, or the one request of any other file."""
    begin, line, first, number = b"", b"", b"", 0
    while not first and (line := _line(source, bound)):
        number += 1
        begin += line
        first = line.removeprefix(_BYTE_ORDER_MARK).strip() if number == 1 else line.strip()
    if not first:
        return
    if first.startswith((b"{", b"[")) and (_is_long(line, bound) or _is_json(first)):
        yield from _lines(source, bound, number, line, first)
        return
    rest = source.read(-1 if bound is None else max(0, bound - len(begin) + 1))
    place = f":{number}" if first.startswith(b"{") else ""
    # Protobuf may begin with what looks like an empty line: nothing is stripped here.
    content = begin + rest
    if bound is not None and len(content) > bound:
        yield Payload(place, BodyTooLarge(bound))
    else:
        yield Payload(place, content)


def _lines(
    source: io.BufferedReader, bound: int | None, number: int, line: bytes, content: bytes
) -> Iterator[Payload]:
    """The requests on this line and those after it."""
    while line:
        if bound is not None and _is_long(line, bound):
            yield Payload(f":{number}", BodyTooLarge(bound))
            while line and not line.endswith(b"\n"):
                line = _line(source, bound)
        elif content:
            yield Payload(f":{number}", content)
        line = _line(source, bound)
        content = line.strip()
        number += 1


def _line(source: io.BufferedReader, bound: int | None) -> bytes:
    """A line with its end, or its beginning if it is longer than the bound."""
    return source.readline(-1 if bound is None else bound + len(b"\r\n"))


def _is_long(line: bytes, bound: int | None) -> bool:
    return bound is not None and len(line) > bound and len(line.rstrip(b"\r\n")) > bound


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def _buffered(raw: io.RawIOBase) -> io.BufferedReader:
    return io.BufferedReader(raw, _BUFFER_BYTES)


class _Counting(io.RawIOBase):
    """A file that tells how many bytes of it were read."""

    def __init__(self, file: BinaryIO, advance: Callable[[int], None]) -> None:
        self._file = file
        self._advance = advance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        # What a pipe has is used at once: `read` would wait for more.
        piece = self._file.read1(len(buffer))  # type: ignore[attr-defined]  # all files here have it
        buffer[: len(piece)] = piece
        self._advance(len(piece))
        return len(piece)


class _Whole(io.RawIOBase):
    """A file that is only read, as one to buffer."""

    def __init__(self, file: Readable) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._file.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)
