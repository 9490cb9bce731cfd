"""Moves large values out of attributes, leaving a preview, and puts them back.

The row keeps each attribute with the beginning of its value as text. The digest of the whole value
stands in the column `payload_digests`, so that equal values are found and compared without opening
a frame.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import orjson
from msgspec import Raw
from msgspec.json import Decoder, Encoder

from observatory_storage import jsonb

__all__ = [
    "MOVABLE_BYTES",
    "PREVIEW_CHARACTERS",
    "Moved",
    "digest_of",
    "move_large",
    "preview_of",
    "put_back",
]

MOVABLE_BYTES: Final = 256
"""Smaller values stay in their row: as JSON text, in bytes."""
PREVIEW_CHARACTERS: Final = 100
"""The length of a preview. A preview of a longer text ends in an ellipsis."""

_DIGEST_BYTES: Final = 12
# Of a hundred characters, each may take twelve bytes: a pair of escape sequences.
_BEGINNING_BYTES: Final = 1_300
_ELLIPSIS: Final = "…"
_raw: Final = Decoder(dict[str, Raw])
_encode: Final = Encoder().encode
_VERSION: Final = b"\x01"  # of jsonb's binary format, see `jsonb`


class Moved(NamedTuple):
    """Attributes without their large values.

    Attributes:
        attributes: in the binary format of jsonb, with previews.
        values: the JSON text of each moved value, by its key.
        digests: the digests of the values, in the binary format of jsonb.
    """

    attributes: bytes
    values: dict[str, bytes]
    digests: bytes


def move_large(attributes: bytes, threshold: int) -> Moved | None:
    """Move the largest values out, until the rest is no larger than the threshold, in bytes.

    Args:
        attributes: a JSON object, in the binary format of jsonb.
        threshold: the most bytes that shall be left.

    Returns:
        None if no value has to be moved, or none is large enough.
    """
    excess = len(attributes) - threshold
    if excess <= 0:
        return None
    raw = _raw.decode(memoryview(attributes)[1:])
    sizes = zip(map(len, map(memoryview, raw.values())), raw, strict=True)  # type: ignore[arg-type]
    values: dict[str, bytes] = {}
    for size, key in sorted((one for one in sizes if one[0] >= MOVABLE_BYTES), reverse=True):
        if excess <= 0:
            break
        values[key] = bytes(raw[key])
        preview = orjson.dumps(preview_of(values[key]))
        raw[key] = Raw(preview)
        excess -= size - len(preview)
    if not values:
        return None
    digests = orjson.dumps({key: digest_of(value) for key, value in values.items()})
    return Moved(_VERSION + _encode(raw), values, _VERSION + digests)


def preview_of(value: bytes) -> str:
    """The preview of a value, which is given as JSON text."""
    # Of a long value only the beginning is decoded, up to a blank: there, no character is cut.
    end = value.rfind(b" ", 0, _BEGINNING_BYTES) if len(value) > _BEGINNING_BYTES else -1
    head = value if end <= PREVIEW_CHARACTERS else value[:end] + value[:1]
    text = _text_of(head)
    if len(text) <= PREVIEW_CHARACTERS and head is not value:
        text = _text_of(value)
    return text if len(text) <= PREVIEW_CHARACTERS else text[:PREVIEW_CHARACTERS] + _ELLIPSIS


def _text_of(value: bytes) -> str:
    text: str = orjson.loads(value) if value[:1] == b'"' else value.decode()
    return text


def digest_of(value: bytes) -> str:
    """The digest of a value, which is given as JSON text as `jsonb.dumps` writes it."""
    return base64.b64encode(blake2b(value, digest_size=_DIGEST_BYTES).digest()).decode()


def put_back(attributes: Mapping[str, Any], values: Mapping[str, bytes]) -> dict[str, Any]:
    """The attributes with their whole values instead of previews.

    An attribute that has been set since to something else than its preview stays as it is.
    """
    whole = dict(attributes)
    for key, value in values.items():
        if whole.get(key) == preview_of(value):
            whole[key] = jsonb.loads(value)
    return whole
