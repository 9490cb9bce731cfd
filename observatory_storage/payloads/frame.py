"""The format of a payload frame: values of several rows of one trace, compressed together.

A frame is one frame of Zstandard (RFC 8878) with a checksum of its content. Its content is the
length of a header (four bytes, big endian), the header, and then the values one after the other,
each as JSON text. The header is a JSON array with an element for each row: its span id, the start
of its span in microseconds since 1970, the nanoseconds beyond them, the position of the event or
null, and the keys with the lengths of their values. A log record has its id in place of the span's,
and its time in place of the start.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final, NamedTuple

import orjson

from observatory_storage.errors import ConfigError, StorageError

__all__ = [
    "FULL_FRAME_BYTES",
    "DamagedFrame",
    "Frame",
    "Member",
    "Owner",
    "content_of",
    "pack",
    "unpack",
    "zstd_module",
]

FULL_FRAME_BYTES: Final = 4 * 1024 * 1024
"""From so many bytes of values on, a frame takes no more: it is read and written as a whole.

It is as large as some images, so that those which each call of a conversation carries along are
stored a few times only."""
_LENGTH_BYTES: Final = 4
_LOG_ID_LENGTH: Final = 32
# Every level looks back so far.
_LEAST_WINDOW: Final = 512 * 1024
# Decompressors refuse a larger window unless they are told otherwise.
_MOST_WINDOW_LOG: Final = 27
# Level 3, the default of Zstandard, saves 6 % of the bytes of independent texts, but takes a third
# longer, and writers wait for it.
_LEVEL: Final = 1


class Owner(NamedTuple):
    """The row of a trace that has a value.

    Attributes:
        span_id: the id of the span; of a log record, its own id in 32 hex digits.
        start_us: the start of the span, or the time of the record, in microseconds since 1970.
        start_ns: the nanoseconds beyond it.
        position: the position of the span's event; None if the span itself has the value.
    """

    span_id: str
    start_us: int
    start_ns: int
    position: int | None = None

    def __str__(self) -> str:
        is_log = len(self.span_id) == _LOG_ID_LENGTH
        return f"{'log record' if is_log else 'span'} {self.span_id}"


class Member(NamedTuple):
    """The values of one row in a frame: JSON text by the key of the attribute."""

    owner: Owner
    values: Mapping[str, bytes]


class DamagedFrame(StorageError):
    """The data of a payload frame are not what was written."""


class Frame(dict[Owner, dict[str, bytes]]):
    """The content of a frame: the JSON text of values, by owner and key."""

    def members(self) -> list[Member]:
        """The rows with their values."""
        return [Member(owner, values) for owner, values in self.items()]


@cache
def zstd_module() -> Any:
    """The module of Zstandard: that of Python 3.14, or its backport.

    Raises:
        ConfigError: none of them is there.
    """
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        try:
            from backports import zstd
        except ImportError:
            raise ConfigError(
                "compressed payloads need Zstandard, which Python has from 3.14 on:"
                " pip install 'observatory-storage[zstd]'"
            ) from None
    return zstd


def pack(members: Iterable[Member], level: int = _LEVEL) -> bytes:
    """The data of a frame with these rows.

    Args:
        members: the rows with their values.
        level: the level of compression. Any level is read equally fast.

    Raises:
        ConfigError: Zstandard is not installed.
    """
    header: list[Any] = []
    values: list[bytes] = []
    for owner, of_owner in members:
        header.append([*owner, [[key, len(value)] for key, value in of_owner.items()]])
        values += of_owner.values()
    encoded = orjson.dumps(header)
    content = b"".join((len(encoded).to_bytes(_LENGTH_BYTES, "big"), encoded, *values))
    if len(content) <= _LEAST_WINDOW:
        return _compressors.compress(content, level)
    # Otherwise low levels would not look back beyond an image.
    zstd = zstd_module()
    parameter = zstd.CompressionParameter
    options = _options(level) | {
        parameter.window_log: min(len(content).bit_length(), _MOST_WINDOW_LOG),
        parameter.enable_long_distance_matching: 1,
    }
    return bytes(zstd.compress(content, options=options))


def _options(level: int) -> dict[Any, int]:
    parameter = zstd_module().CompressionParameter
    return {parameter.compression_level: level, parameter.checksum_flag: 1}


class _Compressors(threading.local):
    """The compressors of a thread, by level: making one costs a tenth of using it for a frame."""

    def __init__(self) -> None:
        self._by_level: dict[int, Any] = {}

    def compress(self, content: bytes, level: int) -> bytes:
        # Taken out meanwhile, so that one that was interrupted is not used again.
        compressor = self._by_level.pop(level, None)
        if compressor is None:
            compressor = zstd_module().ZstdCompressor(options=_options(level))
        compressor.set_pledged_input_size(len(content))
        data = bytes(compressor.compress(content, compressor.FLUSH_FRAME))
        self._by_level[level] = compressor
        return data


_compressors: Final = _Compressors()


def content_of(data: bytes) -> bytes:
    """The content of a frame as it was compressed: the JSON text of its values among it.

    Raises:
        DamagedFrame: the data are damaged.
        ConfigError: Zstandard is not installed.
    """
    zstd = zstd_module()
    try:
        return bytes(zstd.decompress(data))
    except (zstd.ZstdError, EOFError) as error:
        raise DamagedFrame(f"a payload frame is damaged: {error}") from error


def unpack(data: bytes) -> Frame:
    """The content of a frame, by owner and key.

    Raises:
        DamagedFrame: the data are damaged.
        ConfigError: Zstandard is not installed.
    """
    content = content_of(data)
    start = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "big")
    frame = Frame()
    try:
        for *owner, keys in orjson.loads(content[_LENGTH_BYTES:start]):
            values = frame.setdefault(Owner(*owner), {})
            for key, length in keys:
                values[key] = content[start : start + length]
                start += length
    except (TypeError, ValueError) as error:
        raise DamagedFrame(f"a payload frame is damaged: {error}") from error
    if start != len(content):
        raise DamagedFrame("a payload frame is damaged: its values have another length")
    return frame
