"""The response to an OTLP request: an Export*ServiceResponse, in JSON or in protobuf.

The message has two fields in one, so it is written here without the protobuf package, which the
receiver of a JSON request need not have.
"""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

import orjson

from observatory_storage import jsonb
from observatory_storage.errors import ValidationError

__all__ = ["Encoding", "response"]

Encoding = Literal["json", "protobuf"]

# The names of the number of refused items, by signal.
_REJECTED: Final = {
    "traces": "rejectedSpans",
    "metrics": "rejectedDataPoints",
    "logs": "rejectedLogRecords",
}
_PARTIAL_SUCCESS: Final = b"\x0a"  # field 1, a message
_REJECTED_NUMBER: Final = b"\x08"  # field 1 of it, a varint
_ERROR_MESSAGE: Final = b"\x12"  # field 2 of it, a text


def response(signal: str, encoding: Encoding, rejected: int, message: str) -> bytes:
    """The body of a response.

    Args:
        signal: "traces", "metrics" or "logs".
        encoding: how to write it.
        rejected: the number of items that are not stored.
        message: what went wrong. Without refused items it is a warning. If it is empty too, the
            response is that of full success, which has no fields.
    """
    if encoding not in get_args(Encoding):
        raise ValidationError("encoding", encoding, 'must be "json" or "protobuf"')
    text = jsonb.clean_text(message)
    if encoding == "json":
        return orjson.dumps(_as_json(signal, rejected, text))
    return _as_protobuf(rejected, text.encode())


def _as_json(signal: str, rejected: int, message: str) -> dict[str, Any]:
    partial: dict[str, Any] = {}
    if rejected:
        partial[_REJECTED[signal]] = str(rejected)  # a 64-bit integer is a text in ProtoJSON
    if message:
        partial["errorMessage"] = message
    return {"partialSuccess": partial} if partial else {}


def _as_protobuf(rejected: int, message: bytes) -> bytes:
    partial = b""
    if rejected:
        partial += _REJECTED_NUMBER + _varint(rejected)
    if message:
        partial += _ERROR_MESSAGE + _varint(len(message)) + message
    return _PARTIAL_SUCCESS + _varint(len(partial)) + partial if partial else b""


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)
