"""Moves large values out of attributes, leaving a preview, and puts them back.

The row keeps each attribute with the beginning of its value as text. The digest of the whole value
stands in the column `payload_digests`, so that equal values are found and compared without opening
a frame.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable, Mapping
from hashlib import sha256
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
    "is_like_preview",
    "move_large",
    "preview_of",
    "put_back",
    "put_back_text",
]

MOVABLE_BYTES: Final = 256
"""Smaller values stay in their row: as JSON text, in bytes."""
PREVIEW_CHARACTERS: Final = 100
"""The length of a preview. A preview of a longer text ends in an ellipsis."""

_DIGEST_BYTES: Final = 12
# Most of a hundred characters take one to three bytes, but each may take twelve: a pair of escape
# sequences.
_BEGINNING_BYTES: Final = (400, 1_300)
_ELLIPSIS: Final = "…"
# The JSON text of a shorter text is smaller than `MOVABLE_BYTES`: a character takes six bytes.
_LEAST_CHARACTERS: Final = (MOVABLE_BYTES - 2) // 6
_SCALARS: Final = frozenset({float, bool, type(None)})
# With an integer beyond these, Python writes the attributes, and some floats not as orjson does.
_LEAST_INTEGER: Final = -(2**63)
_GREATEST_INTEGER: Final = 2**64 - 1
_Large = tuple[int, str, bytes, str]  # the length of the JSON text, the key, the text, the preview
_raw: Final = Decoder(dict[str, Raw])
_items: Final = Decoder(list[Raw])
_OBJECT: Final = ord("{")
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


def move_large(
    attributes: bytes,
    threshold: int,
    given: Mapping[str, Any] | None = None,
    stays: Callable[[str], bool] | None = None,
) -> Moved | None:
    """Move the largest values out, until the rest is no larger than the threshold, in bytes.

    Only text, objects and lists of objects move.

    Args:
        attributes: a JSON object, in the binary format of jsonb.
        threshold: the most bytes that shall be left.
        given: what `jsonb.encode` has made it from, if that is known: it is read at half the cost.
        stays: whether the value of a key is not moved.

    Returns:
        None if no value has to be moved, or none is large enough.
    """
    excess = len(attributes) - threshold
    if excess <= 0:
        return None
    rest: dict[str, Any]
    large = None if given is None else _large_of(given)
    if given is None or large is None:
        raw = _raw.decode(memoryview(attributes)[1:])
        rest, encode, large = {**raw}, _encode, _large_of_raw(raw)
    else:
        rest, encode = {**given}, jsonb.dumps
    if stays is not None:
        large = [one for one in large if not stays(one[1])]
    large.sort(reverse=True)
    values: dict[str, bytes] = {}
    digests: dict[str, str] = {}
    for size, key, text, preview in large:
        if excess <= 0:
            break
        values[key] = text
        digests[key] = digest_of(text)
        rest[key] = preview
        excess -= size - len(orjson.dumps(preview))
    if not values:
        return None
    return Moved(_VERSION + encode(rest), values, _VERSION + orjson.dumps(digests))


def _large_of(attributes: Mapping[str, Any]) -> list[_Large] | None:
    """The values that may move; None if only the text can tell, because of unusual types."""
    large = []
    for key, value in attributes.items():
        kind = type(value)
        if type(key) is not str:
            return None
        if kind is str:
            if len(value) >= _LEAST_CHARACTERS:
                text = orjson.dumps(value)
                if len(text) >= MOVABLE_BYTES:
                    large.append((len(text), key, text, _shortened(value)))
        elif kind is dict or kind is list:
            plain = jsonb.plain_text(value)
            if plain is None:
                return None
            if len(plain) >= MOVABLE_BYTES and _is_movable(plain):
                large.append((len(plain), key, plain, preview_of(plain)))
        elif kind is int:
            if not _LEAST_INTEGER <= value <= _GREATEST_INTEGER:
                return None
        elif kind not in _SCALARS:
            return None
    return large


def _large_of_raw(attributes: Mapping[str, Raw]) -> list[_Large]:
    """The values that may move."""
    large = []
    sizes = zip(map(len, map(memoryview, attributes.values())), attributes, strict=True)  # type: ignore[arg-type]
    for size, key in sizes:
        if size >= MOVABLE_BYTES:
            text = bytes(attributes[key])
            if _is_movable(text):
                large.append((size, key, text, preview_of(text)))
    return large


def _is_movable(value: bytes) -> bool:
    """Whether a value is text, an object, or a list of objects.

    Filters compare numbers by their size, and lists also by each of their elements, which neither
    a preview nor a digest tells.
    """
    if value[:1] == b"[":
        return all(memoryview(item)[0] == _OBJECT for item in _items.decode(value))
    return value[:1] in (b'"', b"{")


def preview_of(value: bytes) -> str:
    """The preview of a value, which is given as JSON text."""
    # Of a long value only the beginning is decoded, up to a blank: there, no character is cut.
    for most in _BEGINNING_BYTES:
        end = value.rfind(b" ", PREVIEW_CHARACTERS, most) if len(value) > most else -1
        if end >= 0:
            text = _text_of(value[:end] + value[:1])
            if len(text) > PREVIEW_CHARACTERS:
                return _shortened(text)
    return _shortened(_text_of(value))


def _text_of(value: bytes) -> str:
    text: str = orjson.loads(value) if value[:1] == b'"' else value.decode()
    return text


def _shortened(text: str) -> str:
    return text if len(text) <= PREVIEW_CHARACTERS else text[:PREVIEW_CHARACTERS] + _ELLIPSIS


def is_like_preview(value: object) -> bool:
    """Whether a value may equal the preview of another value."""
    if not isinstance(value, str):
        return False
    if len(value) > PREVIEW_CHARACTERS:
        return len(value) == PREVIEW_CHARACTERS + 1 and value.endswith(_ELLIPSIS)
    # The preview of a short text is that text, but the preview of a list is the text of the list.
    return value.startswith(("[", "{")) and len(value.encode()) >= MOVABLE_BYTES


def digest_of(value: bytes) -> str:
    """The digest of a value, which is given as JSON text as `jsonb.dumps` writes it.

    That of a list or an object begins with its bracket, since its preview is text.
    """
    # Processors have instructions for SHA-256, which make it the fastest of the standard library.
    digest = b2a_base64(sha256(value).digest()[:_DIGEST_BYTES], newline=False).decode()
    return digest if value[:1] == b'"' else chr(value[0]) + digest


def put_back(attributes: Mapping[str, Any], values: Mapping[str, bytes]) -> dict[str, Any]:
    """The attributes with their whole values instead of previews.

    An attribute that has been set since to something else than its preview stays as it is.
    """
    whole = dict(attributes)
    for key, value in values.items():
        loaded = jsonb.loads(value)
        text = loaded if isinstance(loaded, str) else value.decode()
        if whole.get(key) == _shortened(text):
            whole[key] = loaded
    return whole


def put_back_text(attributes: bytes, values: Mapping[str, bytes]) -> bytes:
    """As `put_back`, of attributes as JSON text: what is not put back stays as it is written."""
    raw = _raw.decode(attributes)
    for key, value in values.items():
        stored = bytes(raw.get(key, b""))
        if stored[:1] == b'"' and orjson.loads(stored) == preview_of(value):
            raw[key] = Raw(value)
    return _encode(raw)
