"""The response to an OTLP request: an Export*ServiceResponse, in JSON or in protobuf.

The message has two fields in one, so it is written here without the protobuf package, which the
receiver of a JSON request need not have.
"""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

import orjson

from observatory_storage import jsonb
from observatory_storage.errors import ValidationError
from observatory_storage.otlp.wire_writer import integer_field, text_field

__all__ = ["Encoding", "response"]

Encoding = Literal["json", "protobuf"]

# The names of the number of refused items, by signal.
_REJECTED: Final = {
    "traces": "rejectedSpans",
    "metrics": "rejectedDataPoints",
    "logs": "rejectedLogRecords",
}


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
    return text_field(1, integer_field(1, rejected) + text_field(2, message))
