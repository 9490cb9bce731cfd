"""The body of a response that reports a failure: a google.rpc.Status, in JSON or in protobuf."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

import orjson

from observatory_storage import jsonb
from observatory_storage.otlp.response import Encoding
from observatory_storage.otlp.wire_writer import integer_field, text_field

__all__ = ["RpcCode", "rpc_status"]

_BAD_REQUEST: Final = "type.googleapis.com/google.rpc.BadRequest"


class RpcCode(IntEnum):
    """The codes of google.rpc.Code that are used here."""

    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


def rpc_status(
    encoding: Encoding, code: RpcCode, message: str, violation: tuple[str, str] | None = None
) -> bytes:
    """A google.rpc.Status.

    Args:
        encoding: how to write it.
        code: the code, which senders only log.
        message: what went wrong.
        violation: the field of the request that is bad, and why. It becomes a
            google.rpc.BadRequest in the details.
    """
    message = jsonb.clean_text(message)
    field, description = map(jsonb.clean_text, violation or ("", ""))
    if encoding == "json":
        status: dict[str, Any] = {"code": int(code), "message": message}
        if violation:
            found = {"field": field, "description": description}
            status["details"] = [{"@type": _BAD_REQUEST, "fieldViolations": [found]}]
        return orjson.dumps(status)
    written = integer_field(1, code) + text_field(2, message)
    if violation:
        bad_request = text_field(1, text_field(1, field) + text_field(2, description))
        written += text_field(3, text_field(1, _BAD_REQUEST) + text_field(2, bad_request))
    return written
