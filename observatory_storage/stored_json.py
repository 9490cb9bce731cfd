"""JSON that has been read in an encoded form, and is decoded when somebody asks for it.

Decoding the attributes of all spans takes longer than all else that makes spans of cached values.
The attributes of a model give the value itself (`models.mutable_json`).
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final

from msgspec import msgpack

__all__ = ["StoredJson", "decode_columns"]

_decode: Final = msgpack.Decoder().decode
_encode: Final = msgpack.Encoder().encode


class StoredJson:
    """A value of a JSON column, as MessagePack. Rows may share one: each load makes a new value."""

    __slots__ = ("content",)

    def __init__(self, content: bytes) -> None:
        self.content = content

    @classmethod
    def of(cls, value: Any) -> bytes:
        """The content for a value.

        Raises:
            OverflowError: it has an integer beyond 64 bits.
        """
        return _encode(value)

    def load(self) -> Any:
        """A new value."""
        return _decode(self.content)

    def __reduce__(self) -> tuple[Any, ...]:
        return msgpack.decode, (self.content,)  # a copy is the value itself

    def __repr__(self) -> str:
        return repr(self.load())


def decode_columns(columns: MutableMapping[str, Any]) -> None:
    """Put the values themselves in place of all that are still encoded."""
    encoded = [(name, value) for name, value in columns.items() if type(value) is StoredJson]
    for name, value in encoded:
        columns[name] = value.load()
