"""Writes protobuf's wire format: the few messages that are answered, without the otel extra."""

from __future__ import annotations

__all__ = ["integer_field", "text_field", "varint"]

_VARINT = 0
_LENGTH_DELIMITED = 2


def varint(number: int) -> bytes:
    """An integer that is not negative, 7 bits in each byte, the least significant first."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def integer_field(field: int, number: int) -> bytes:
    """A field with an integer that is not negative. Nothing for 0, its default."""
    return varint(field << 3 | _VARINT) + varint(number) if number else b""


def text_field(field: int, content: str | bytes) -> bytes:
    """A field with a text or a message. Nothing if that is empty."""
    encoded = content.encode() if isinstance(content, str) else content
    if not encoded:
        return b""
    return varint(field << 3 | _LENGTH_DELIMITED) + varint(len(encoded)) + encoded
