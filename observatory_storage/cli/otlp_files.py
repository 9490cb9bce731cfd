"""The requests in files of OTLP: JSON, JSON lines or protobuf."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import orjson

__all__ = ["Payload", "payloads"]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Payload:
    """One request, and the number of the line on which it begins; 0 in a binary file."""

    line: int
    content: bytes


def payloads(file: BinaryIO, advance: Callable[[int], None]) -> Iterator[Payload]:
    """The requests of a file, one at a time; `advance` is called with the number of bytes read.

    A file whose first line is a JSON document has a request on every line, and is read line by
    line. Any other file is one request, and is read whole.
    """
    begin, first, number = b"", b"", 0
    for line in file:
        advance(len(line))
        number += 1
        begin += line
        first = line.removeprefix(_BYTE_ORDER_MARK).strip() if number == 1 else line.strip()
        if first:
            break
    if not first:
        return
    if first.startswith((b"{", b"[")) and _is_json(first):
        yield Payload(number, first)
        for more, line in enumerate(file, number + 1):
            advance(len(line))
            if line.strip():
                yield Payload(more, line.strip())
        return
    rest = file.read()
    advance(len(rest))
    # Protobuf may begin with what looks like an empty line: nothing is stripped here.
    yield Payload(number if first.startswith(b"{") else 0, begin + rest)


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True
