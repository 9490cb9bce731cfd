"""The format of a segment of words: blocks of words with the ordinals of what has them.

A key is a trace and an hour. The keys of a segment stand one after the other, each in 20 bytes: the
trace's UUID, and the hours since 1970. A key's place among them is its ordinal.

A block is one frame of Zstandard. Its content is the words in the order of their bytes, each ended
by a line feed; a zero byte; then for each word the length of its ordinals, and last the ordinals of
the words. Numbers are written in base 128, the lower digits first, and the highest bit is set in
all digits but the last. Ordinals are written as differences. A word without ordinals is a frequent
one: any key of the segment may have it.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import accumulate, pairwise
from typing import Final, NamedTuple
from uuid import UUID

from observatory_storage.payloads.frame import zstd_module
from observatory_storage.times import UNIX_EPOCH

__all__ = [
    "KEY_BYTES",
    "Block",
    "HourKey",
    "blocks_of",
    "count_of",
    "encoded",
    "is_frequent",
    "joined",
    "key_bytes",
    "keys_of",
    "ordinals_of",
    "read_block",
    "read_words",
]

KEY_BYTES: Final = 20
"""The size of a key in `key_bytes`."""
_KEY: Final = struct.Struct(">16si")
_HOUR: Final = timedelta(hours=1)
_BLOCK_BYTES: Final = 16_384
# A word that more than this part of the keys has rules out too little.
_FREQUENT: Final = 0.25
# In segments with fewer keys no word is frequent.
_LEAST_KEYS: Final = 64
_LEVEL: Final = 9
# The digits of a number but the last.
_HIGHER: Final = bytes(range(128, 256))


class HourKey(NamedTuple):
    """An hour of a trace.

    Attributes:
        trace_id: the `id` of the trace.
        start_time: the hour, in UTC.
    """

    trace_id: UUID
    start_time: datetime


class Block(NamedTuple):
    """A block to store.

    Attributes:
        first_word: the first of its words.
        data: its words and their ordinals.
    """

    first_word: str
    data: bytes


def key_bytes(keys: Iterable[HourKey]) -> bytes:
    """The keys of a segment as they are stored."""
    return b"".join(
        _KEY.pack(key.trace_id.bytes, (key.start_time - UNIX_EPOCH) // _HOUR) for key in keys
    )


def keys_of(data: bytes) -> list[HourKey]:
    """The keys that are stored so."""
    return [
        HourKey(UUID(bytes=trace_id), UNIX_EPOCH + hours * _HOUR)
        for trace_id, hours in _KEY.iter_unpack(data)
    ]


def is_frequent(found: int, key_count: int) -> bool:
    """Whether a word of so many keys of a segment is not worth its ordinals."""
    return key_count >= _LEAST_KEYS and found > _FREQUENT * key_count


def blocks_of(words: Iterable[tuple[bytes, bytes]]) -> Iterator[Block]:
    """The blocks of a segment.

    Args:
        words: in the order of their bytes, with their ordinals as `encoded` or `joined` writes
            them; without any if they are frequent.
    """
    block: dict[bytes, bytes] = {}
    size = 0
    for word, ordinals in words:
        block[word] = ordinals
        size += len(word) + len(ordinals) + 2
        if size >= _BLOCK_BYTES:
            yield _block(block)
            block, size = {}, 0
    if block:
        yield _block(block)


def _block(words: Mapping[bytes, bytes]) -> Block:
    zstd = zstd_module()
    content = b"".join(
        (
            *(b"%b\n" % word for word in words),
            b"\0",
            _numbers([*map(len, words.values())]),
            *words.values(),
        )
    )
    return Block(next(iter(words)).decode(), bytes(zstd.compress(content, _LEVEL)))


def read_block(
    data: bytes, first: str = "", last: str | None = None
) -> Iterator[tuple[str, list[int]]]:
    """The words of a block from the first to the last, with their ordinals."""
    for word, ordinals in read_words(data, first, last):
        yield word.decode(), ordinals_of(ordinals)


def read_words(
    data: bytes, first: str = "", last: str | None = None
) -> Iterator[tuple[bytes, bytes]]:
    """The words of a block from the first to the last, with their ordinals as they are stored."""
    content = bytes(zstd_module().decompress(data))
    end = content.index(b"\0")
    words = content[:end].split(b"\n")[:-1]
    lengths, start = _read_numbers(content, end + 1, len(words))
    low = bisect_left(words, first.encode())
    high = len(words) if last is None else bisect_right(words, last.encode())
    start += sum(lengths[:low])
    for word, length in zip(words[low:high], lengths[low:high], strict=True):
        yield word, content[start : start + length]
        start += length


def encoded(ordinals: Sequence[int]) -> bytes:
    """Ascending ordinals as they are stored."""
    return _numbers([ordinals[0], *(after - before for before, after in pairwise(ordinals))])


def ordinals_of(data: bytes) -> list[int]:
    """The ordinals that are stored so."""
    return list(accumulate(_read_all(data)))


def count_of(data: bytes) -> int:
    """How many ordinals are stored so."""
    return len(data.translate(None, _HIGHER))


def joined(parts: Iterable[tuple[int, bytes]]) -> bytes:
    """The ordinals of a word in several segments, as they are stored if the keys are joined.

    Args:
        parts: the number of keys before the segment, and the ordinals of the word in it.
    """
    found: list[bytes] = []
    last = 0
    for before, data in parts:
        (first,), rest = _read_numbers(data, 0, 1)
        found += (_numbers([before + first - last]), data[rest:])
        last = before + sum(_read_all(data))
    return b"".join(found)


def _numbers(values: Sequence[int]) -> bytes:
    if max(values) < 128:
        return bytes(values)
    found = bytearray()
    for value in values:
        left = value
        while left > 127:
            found.append(left & 127 | 128)
            left >>= 7
        found.append(left)
    return bytes(found)


def _read_all(data: bytes) -> Sequence[int]:
    return data if data.isascii() else _read_numbers(data, 0, count_of(data))[0]


def _read_numbers(data: bytes, start: int, count: int) -> tuple[Sequence[int], int]:
    """So many numbers, and where they end."""
    small = data[start : start + count]
    if small.isascii():
        return small, start + count
    values: list[int] = []
    value = shift = 0
    while len(values) < count:
        byte = data[start]
        start += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            values.append(value)
            value = shift = 0
    return values, start
