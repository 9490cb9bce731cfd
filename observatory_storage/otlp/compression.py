"""Decompresses OTLP requests. A bound is kept while decompressing, so that no request fills memory.

Zstandard is in Python's standard library from 3.14 on, and in the ``zstd`` extra before. It is
imported when the first data in it arrives.
"""

from __future__ import annotations

import gzip
import importlib
import io
import zlib
from collections.abc import Sequence
from contextlib import suppress
from types import ModuleType
from typing import Any, Final, Protocol

from observatory_storage.errors import ConfigError, ValidationError

__all__ = [
    "CODINGS",
    "MAX_BODY_BYTES",
    "BodyTooLarge",
    "Readable",
    "UnknownCoding",
    "available_codings",
    "codings_of",
    "damaged",
    "damaged_errors",
    "decompress",
    "decompressing",
    "detect_coding",
    "read_body",
    "zstd_module",
]

MAX_BODY_BYTES: Final = 64 * 1024 * 1024
CODINGS: Final = ("gzip", "zstd", "deflate")

# Names by which senders call a coding. The collector's "zlib" is what HTTP calls "deflate".
_NAMES: Final = {"gzip": "gzip", "x-gzip": "gzip", "zstd": "zstd", "deflate": "deflate"} | {
    "zlib": "deflate"
}
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE: Final = b"\x2a\x4d\x18"  # after a byte from 0x50 to 0x5F
_PIECE: Final = 256 * 1024


class BodyTooLarge(ValidationError):
    """A request is larger than its bound."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__("payload", None, f"must have at most {max_bytes} bytes, decompressed")
        self.args = (f"the request has more than {max_bytes} bytes, decompressed",)
        self._max_bytes = max_bytes

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._max_bytes,)


class UnknownCoding(ValidationError):
    """A content coding that is not supported."""


class Readable(Protocol):
    """A file that is read from its beginning to its end."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""


def decompress(
    body: bytes, content_encoding: str | None = None, *, max_bytes: int = MAX_BODY_BYTES
) -> bytes:
    """Decompress the body of a request, within a bound.

    `ingest_traces`, `ingest_metrics` and `ingest_logs` recognise gzip, zstd and zlib themselves.
    Call this before them to set another bound, or if senders use ``deflate`` without the header of
    zlib, which cannot be recognised.

    Args:
        body: the body as it was received.
        content_encoding: the header ``Content-Encoding``: ``gzip``, ``zstd`` or ``deflate`` (with
            and without the header of zlib), several of them, or ``identity``. None recognises
            gzip, zstd and zlib, and returns any other body unchanged.
        max_bytes: the bound on the decompressed size. The default is 64 MiB.

    Raises:
        ValidationError: the body is damaged, the coding is not known, or the decompressed body is
            larger than the bound.
        ConfigError: the body is in zstd, and neither Python 3.14 nor the ``zstd`` extra is there.
    """
    if content_encoding is None:
        found = detect_coding(body)
        if found is None:
            return body
        codings: Sequence[str] = (found,)
    else:
        codings = codings_of(content_encoding)
    return read_body(io.BytesIO(body), codings, max_bytes)


def detect_coding(beginning: bytes) -> str | None:
    """The compression of data that begins so. Neither JSON nor an OTLP request begins so."""
    if beginning.startswith(_GZIP):
        return "gzip"
    if beginning.startswith(_ZSTD):
        return "zstd"
    if beginning[1:4] == _ZSTD_SKIPPABLE and beginning[0] >> 4 == 5:
        return "zstd"
    # "x" is neither the beginning of JSON nor, as a field of protobuf, one of OTLP's requests.
    return "deflate" if beginning[:1] == b"x" and _has_zlib_header(beginning) else None


def available_codings() -> list[str]:
    """The codings that can be read here: zstd may not be installed."""
    try:
        zstd_module()
    except ConfigError:
        return [coding for coding in CODINGS if coding != "zstd"]
    return list(CODINGS)


def codings_of(content_encoding: str) -> Sequence[str]:
    """The codings that a ``Content-Encoding`` names, in the order in which they were applied.

    Raises:
        UnknownCoding: it names another one.
    """
    codings = []
    for name in content_encoding.lower().split(","):
        coding = name.strip()
        if coding in ("", "identity"):
            continue
        if coding not in _NAMES:
            rule = f"must be one of {', '.join(CODINGS)}"
            raise UnknownCoding("content_encoding", content_encoding, rule)
        codings.append(_NAMES[coding])
    return codings


def decompressing(file: Readable, coding: str) -> Readable:
    """The decompressed content of a file, which is read as it is needed.

    Opening and reading it raise `damaged_errors()`.

    Raises:
        ConfigError: zstd is not installed.
    """
    if coding == "gzip":
        source: Any = file  # which is only read, although the type of the parameter has more
        return gzip.GzipFile(fileobj=source, mode="rb")
    if coding == "zstd":
        opened: Readable = zstd_module().ZstdFile(file, "r")
        return opened
    return io.BufferedReader(_DeflateFile(file))


def read_body(file: Readable, codings: Sequence[str], max_bytes: int) -> bytes:
    """The decompressed content of a file, which may have at most so many bytes.

    Raises:
        BodyTooLarge: it has more. At most so many bytes and one piece were decompressed.
        ValidationError: it is damaged, or ends too early.
        ConfigError: zstd is not installed.
    """
    pieces: list[bytes] = []
    left = max_bytes
    try:
        for coding in reversed(codings):
            file = decompressing(file, coding)
        while piece := file.read(min(_PIECE, left + 1)):
            left -= len(piece)
            if left < 0:
                raise BodyTooLarge(max_bytes)
            pieces.append(piece)
    except damaged_errors() as error:
        raise damaged(codings, error) from error
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def damaged_errors() -> tuple[type[Exception], ...]:
    """What reading compressed data raises if the data is damaged or cut."""
    errors: tuple[type[Exception], ...] = (EOFError, gzip.BadGzipFile, zlib.error)
    with suppress(ConfigError):
        errors = (*errors, zstd_module().ZstdError)
    return errors


def damaged(codings: Sequence[str], error: Exception) -> ValidationError:
    """The error of a request that cannot be decompressed."""
    name = ", ".join(codings) or "identity"
    return ValidationError("payload", name, f"cannot be decompressed: {error}")


def zstd_module() -> ModuleType:
    """The module `compression.zstd`, or its backport.

    Raises:
        ConfigError: neither is installed.
    """
    for name in ("compression.zstd", "backports.zstd"):
        with suppress(ModuleNotFoundError):
            return importlib.import_module(name)
    raise ConfigError("data in zstd needs the extra: pip install 'observatory-storage[zstd]'")


def _has_zlib_header(beginning: bytes) -> bool:
    return (
        len(beginning) >= 2
        and beginning[0] & 0x0F == 8  # the method, deflate
        and int.from_bytes(beginning[:2]) % 31 == 0
    )


class _DeflateFile(io.RawIOBase):
    """HTTP's "deflate": in the format of zlib, as it is defined, or raw, as some send it."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        first = b""
        while len(first) < 2 and (more := file.read(_PIECE)):
            first += more
        # No encoder begins raw data like a header of zlib: that is a stored block with padding.
        raw = bool(first) and not _has_zlib_header(first)
        self._decoder = zlib.decompressobj(-zlib.MAX_WBITS if raw else zlib.MAX_WBITS)
        self._data = first

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        decoder = self._decoder
        while not decoder.eof:
            data = self._data or self._file.read(_PIECE)
            piece = decoder.decompress(data, len(buffer))
            self._data = decoder.unconsumed_tail
            if piece:
                buffer[: len(piece)] = piece
                return len(piece)
            if not data:
                raise EOFError("the compressed data ends too early")
        if decoder.unused_data or self._file.read(1):
            raise zlib.error("something follows the compressed data")
        return 0
