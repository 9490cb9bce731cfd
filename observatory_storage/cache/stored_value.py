"""How a value is written in Redis: compact, and so that another version does not misread it.

It begins with the format, a tag of what its body contains, how long it took to compute, and what
tells whether it is up to date. Bodies are MessagePack, compressed by Zstandard if that is
installed. Reading a value cannot run code.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any, Final, NamedTuple
from zlib import crc32

from observatory_storage.errors import ConfigError
from observatory_storage.payloads import zstd_module

__all__ = ["DamagedValue", "StoredValue", "packed", "tag_of", "unpacked"]

_FORMAT: Final = b"obs\x01"
_PLAIN, _ZSTD = 0, 1
_HEAD: Final = struct.Struct(">4sB8sIHI")
_COMPRESSED_BYTES: Final = 2_000
_LEVEL: Final = 1


class DamagedValue(Exception):
    """A value is not what this version of the package has stored."""


class StoredValue(NamedTuple):
    """A value as it is stored.

    Attributes:
        check: tells whether it is up to date.
        body: the value itself.
        took_ms: how many milliseconds it took to compute it.
    """

    check: bytes
    body: bytes
    took_ms: int = 0


def tag_of(content: Any) -> bytes:
    """A tag for values whose types `content` describes by its ``repr``."""
    return hashlib.blake2b(repr(content).encode(), digest_size=8).digest()


def packed(tag: bytes, value: StoredValue) -> bytes:
    """The bytes of a value."""
    codec, body = _PLAIN, value.body
    zstd = _zstd()
    if zstd is not None and len(body) >= _COMPRESSED_BYTES:
        codec, body = _ZSTD, zstd.compress(body, _LEVEL)
    took_ms = min(value.took_ms, 2**32 - 1)
    content = value.check + body
    head = _HEAD.pack(_FORMAT, codec, tag, took_ms, len(value.check), crc32(content))
    return head + content


def unpacked(tag: bytes, content: bytes, most_bytes: int) -> StoredValue:
    """The value of these bytes.

    Args:
        tag: what the body must contain.
        content: the bytes.
        most_bytes: the largest body, uncompressed.

    Raises:
        DamagedValue: it is damaged, or was stored by another version of the package.
    """
    if len(content) < _HEAD.size:
        raise DamagedValue("it is too short")
    format_, codec, stored_tag, took_ms, length, checksum = _HEAD.unpack_from(content)
    if format_ != _FORMAT or stored_tag != tag:
        raise DamagedValue("it has another format")
    if crc32(memoryview(content)[_HEAD.size :]) != checksum:
        raise DamagedValue("its checksum is wrong")
    check = content[_HEAD.size : _HEAD.size + length]
    body = content[_HEAD.size + length :]
    if codec == _PLAIN:
        return StoredValue(check, body, took_ms)
    zstd = _zstd()
    if codec != _ZSTD or zstd is None:
        raise DamagedValue("it is compressed in a way that is not known here")
    try:
        body = _decompressed(zstd, body, most_bytes)
    except (zstd.ZstdError, EOFError) as error:
        raise DamagedValue(str(error)) from error
    return StoredValue(check, body, took_ms)


def _decompressed(zstd: Any, body: bytes, most_bytes: int) -> bytes:
    size = zstd.get_frame_info(body).decompressed_size
    if size is None or size > most_bytes:
        raise DamagedValue("it does not tell its size, or is too large")
    found: bytes = zstd.decompress(body)
    return found


def _zstd() -> Any:
    try:
        return zstd_module()
    except ConfigError:
        return None
