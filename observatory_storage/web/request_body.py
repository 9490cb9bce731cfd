"""Reads the body of a request from a WSGI server, decompressed and within a bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from wsgiref.types import WSGIEnvironment

from observatory_storage.errors import ValidationError
from observatory_storage.otlp.compression import BodyTooLarge, read_body

__all__ = ["LengthRequired", "content_length", "read_request_body"]


class LengthRequired(ValidationError):
    """The body has no length, and the server does not mark its end."""


def content_length(environ: WSGIEnvironment) -> int | None:
    """The length of the body; None if it ends where the server says.

    Raises:
        LengthRequired: the body is chunked, which the server does not support.
        ValidationError: the length is no number.
    """
    given = environ.get("CONTENT_LENGTH") or ""
    if given:
        if not (given.isascii() and given.isdigit()):
            raise ValidationError("Content-Length", given, "must be a number of bytes")
        return int(given)
    if environ.get("wsgi.input_terminated"):
        return None
    if environ.get("HTTP_TRANSFER_ENCODING"):
        rule = "is needed: the server does not support chunked bodies"
        raise LengthRequired("Content-Length", None, rule)
    return 0


def read_request_body(environ: WSGIEnvironment, codings: Sequence[str], max_bytes: int) -> bytes:
    """The body, decompressed. Its bound holds before decompressing and after it.

    Raises:
        BodyTooLarge: the body is larger. It is not read if its length says so.
        LengthRequired: the body is chunked, which the server does not support.
        ValidationError: the body is damaged, or ends too early.
        ConfigError: the body is in zstd, which is not installed.
    """
    length = content_length(environ)
    if length is not None and length > max_bytes:
        raise BodyTooLarge(max_bytes)
    return read_body(_Body(environ["wsgi.input"], length, max_bytes), codings, max_bytes)


class _Body:
    """The input of a request, up to its end.

    Errors of the input itself are those of the server, which handles them.
    """

    def __init__(self, stream: Any, length: int | None, max_bytes: int) -> None:
        self._stream = stream
        self._length = length
        self._max_bytes = max_bytes
        self._read = 0

    def read(self, size: int, /) -> bytes:
        if self._length is not None:
            # A server may wait for more than there is, so it is not asked for it.
            size = min(size, self._length - self._read)
            if not size:
                return b""
        data: bytes = self._stream.read(size)
        self._read += len(data)
        if self._read > self._max_bytes:
            raise BodyTooLarge(self._max_bytes)
        if not data and self._length is not None:
            raise EOFError(f"it ends after {self._read} of {self._length} bytes")
        return data
