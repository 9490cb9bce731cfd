"""Decodes the forms in which an OTLP request can be passed, to messages or to parsed OTLP/JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import MsgspecError, Struct
from msgspec.json import Decoder

from observatory_storage.errors import ValidationError
from observatory_storage.otlp import protobuf
from observatory_storage.otlp.compression import decompress
from observatory_storage.otlp.json_reader import parsed_json
from observatory_storage.otlp.message_types import REQUESTS
from observatory_storage.otlp.signals import SIGNALS, Signal, signal_of_request

__all__ = ["decode", "detect_signal"]

_BLANK: Final = b" \t\r\n"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

_DECODERS: Final = {signal.name: Decoder(REQUESTS[signal.keys], strict=False) for signal in SIGNALS}


def decode(payload: Any, signal: Signal) -> Any:
    """The request as a message whose items are not read yet, or as parsed OTLP/JSON.

    Args:
        payload: JSON as text, bytes or parsed; protobuf as bytes or as a message. Bytes may be
            compressed.
        signal: the signal that the request must carry.

    Raises:
        ValidationError: the payload is not an OTLP request, or it carries another signal.
        ConfigError: the payload needs an extra that is not installed: ``otel`` for protobuf,
            ``zstd`` for zstd.
    """
    if protobuf.is_message(payload):
        found, request = protobuf.request_of_message(payload)
        return _checked(request, found, signal)
    if isinstance(payload, (bytes, bytearray, memoryview)):
        payload = decompress(bytes(payload))
    request = _plain_request(payload, signal)
    if request is not None:
        return request
    if isinstance(payload, bytes):
        parsed = _json_of_bytes(payload)
        if parsed is None:
            return protobuf.request_of_bytes(payload, signal)
        return _checked(parsed, signal_of_request(parsed), signal)
    parsed = _mapping(payload)
    return _checked(parsed, signal_of_request(parsed), signal)


def detect_signal(payload: Any) -> str:
    """The signal that an OTLP request carries: ``"traces"``, ``"metrics"`` or ``"logs"``.

    Args:
        payload: OTLP/JSON as text, bytes or parsed; OTLP in protobuf as bytes or as a message. From
            a file of JSON lines, pass one line. Bytes may be compressed.

    Raises:
        ValidationError: the payload is not an OTLP request, or it is empty.
        ConfigError: the payload needs an extra that is not installed: ``otel`` for protobuf,
            ``zstd`` for zstd.
    """
    if protobuf.is_message(payload):
        return protobuf.request_of_message(payload)[0].name
    if isinstance(payload, (bytes, bytearray, memoryview)):
        payload = decompress(bytes(payload))
        parsed = _json_of_bytes(payload)
        if parsed is None:
            return protobuf.signal_of_bytes(payload).name
    else:
        parsed = _mapping(payload)
    signal = signal_of_request(parsed)
    if signal is None:
        raise ValidationError("payload", payload, "must carry traces, metrics or logs: it is empty")
    return signal.name


def _plain_request(payload: Any, signal: Signal) -> Struct | None:
    """The request of JSON text that has nothing unusual outside of its items."""
    try:
        text = payload.encode() if isinstance(payload, str) else payload
        if type(text) is not bytes:
            return None
        start = text.removeprefix(_BYTE_ORDER_MARK).lstrip(_BLANK)
        return _DECODERS[signal.name].decode(start) if start.startswith(b"{") else None
    except (MsgspecError, UnicodeError, RecursionError):
        return None  # the parsed JSON will show why


def _checked(request: Any, found: Signal | None, wanted: Signal) -> Any:
    if found is not None and found is not wanted:
        rule = f"must be a request of {wanted.name}, and is one of {found.name}"
        raise ValidationError("payload", found.name, rule)
    return request


def _mapping(payload: Any) -> Mapping[str, Any]:
    if isinstance(payload, str):
        payload = parsed_json(payload)
    if isinstance(payload, Mapping):
        return payload
    raise ValidationError(
        "payload", payload, "must be an OTLP request: JSON (an object), parsed JSON or protobuf"
    )


def _json_of_bytes(payload: bytes) -> Mapping[str, Any] | None:
    """The parsed JSON, or None if the bytes can only be protobuf.

    A protobuf request begins with 0x0A (field 1, a message), which is also a newline, and a length
    of 123 is "{". Such bytes are taken for protobuf unless all of them parse as JSON.
    """
    text = payload.removeprefix(_BYTE_ORDER_MARK).lstrip(_BLANK)
    if not payload or (not text.startswith((b"{", b"[")) and payload[:1] == b"\n"):
        return None
    if payload[:1] == b"\n":
        try:
            return _mapping(parsed_json(text))
        except ValidationError:
            return None
    if text[:1] in (b"{", b"[", b'"') or (text and chr(text[0]).isprintable()):
        return _mapping(parsed_json(text))
    if not text:
        raise ValidationError("payload", payload, "must be an OTLP request: it is blank")
    return None
