"""JSON as PostgreSQL's jsonb takes it, with what it cannot hold repaired rather than lost.

The fast way is orjson, and clean values take no other. Only when orjson refuses a value, or its
output shows that something may have been lost, `plain_json` walks the value in Python.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from math import isfinite
from types import NoneType
from typing import Any, Final

import orjson
from msgspec import MsgspecError
from msgspec.json import Decoder

from observatory_storage.errors import ValidationError
from observatory_storage.plain_json import PlainJson, clean_text, written

__all__ = [
    "EMPTY_ARRAY",
    "EMPTY_OBJECT",
    "canonical",
    "canonical_bytes",
    "clean_text",
    "convert",
    "decode",
    "dumps",
    "encode",
    "encode_many",
    "loads",
    "plain_text",
    "shared",
]

# The binary format of jsonb: a version, then the text. Sent as it is by binary COPY.
_VERSION: Final = b"\x01"
EMPTY_OBJECT: Final = _VERSION + b"{}"
EMPTY_ARRAY: Final = _VERSION + b"[]"

# Left to the careful way: a dataclass, which it refuses, and times. orjson 3.13 writes 10,000 us as
# ".10000", and rounds offsets to minutes.
_OPTIONS: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
# Here `_is_plain` has a look at what was written, and datetimes in UTC are written right.
_SORTED: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_SORT_KEYS
# Looking through a longer text for a word takes more time than looking at the values in it.
_LONG: Final = 2000
_TEXT: Final = frozenset({str})
_LEAVES: Final = frozenset({str, int, bool, NoneType, orjson.Fragment})
# Between these no float's text has an exponent, and all encoders write the same.
_LEAST_PLAIN: Final = 1e-4
_LEAST_LARGE: Final = 1e16


def encode(value: Any, field: str = "value") -> tuple[bytes, int]:
    """The value in the binary format of jsonb, and how many values in it were repaired.

    Raises:
        ValidationError: the value is nested more deeply than the stack of the caller allows.
    """
    encoded, repairs, _ = convert(value, field)
    return encoded, repairs


def convert(value: Any, field: str = "value") -> tuple[bytes, int, Any]:
    """As `encode`; and the value in the types of JSON if it has others that readers do not know.

    Raises:
        ValidationError: as `encode` does.
    """
    if type(value) is dict and not value:
        return EMPTY_OBJECT, 0, value
    text = plain_text(value)
    if text is not None:
        return _VERSION + text, 0, value
    text, conversion, plain = _careful(value, field)
    return _VERSION + text, conversion.repairs, plain if conversion.is_foreign else value


def encode_many(values: Sequence[Any], field: str) -> tuple[list[bytes | None], list[int]]:
    """As `encode` of each; None stays None, and one object among them many times is encoded once.

    Returns:
        The encoded values, and the indexes of odd values, which were repaired or which readers of
        JSON do not know: each of these has to be converted, and counted, by itself.

    Raises:
        ValidationError: as `encode` does.
    """
    distinct = {id(value): value for value in values}
    if 2 * len(distinct) <= len(values):
        known = {key: _encoded(value, field) for key, value in distinct.items()}
        odd = {key for key, (_, is_odd) in known.items() if is_odd}
        places = [index for index, value in enumerate(values) if id(value) in odd] if odd else []
        return [known[id(value)][0] for value in values], places
    encoded: list[bytes | None] = []
    places = []
    write = orjson.dumps
    for value in values:
        # As `plain_text`, without the calls.
        try:
            text = write(value, option=_OPTIONS)
        except TypeError:
            text = b"null"
        if len(text) >= _LONG and _is_clean(value):
            encoded.append(_VERSION + text)
        elif b"null" in text or (b"\\" in text and b"\\u0000" in text):
            if value is None:
                encoded.append(None)
            # The text is "null" where orjson refused the value.
            elif text != b"null" and b"\\u0000" not in text and _is_plain(value):
                encoded.append(_VERSION + text)
            elif places:  # after the first odd value, the others are probably odd too
                places.append(len(encoded))
                encoded.append(None)
            else:
                single, is_odd = _encoded(value, field)
                if is_odd:
                    places.append(len(encoded))
                encoded.append(single)
        else:
            encoded.append(_VERSION + text)
    return encoded, places


def _encoded(value: Any, field: str) -> tuple[bytes | None, bool]:
    if value is None:
        return None, False
    encoded, repairs, plain = convert(value, field)
    return encoded, repairs > 0 or plain is not value


def dumps(value: Any, field: str = "value") -> bytes:
    """The value as JSON text that jsonb takes.

    Raises:
        ValidationError: as `encode` does.
    """
    text = plain_text(value)
    return _careful(value, field)[0] if text is None else text


def plain_text(value: Any) -> bytes | None:
    """The value as JSON text that jsonb takes; None if it has to be converted first."""
    try:
        text = orjson.dumps(value, option=_OPTIONS)
    except TypeError:
        return None
    if len(text) >= _LONG and _is_clean(value):
        return text
    # jsonb has no \u0000, and orjson writes NaN as null: look closer only where one may stand.
    # Looking for a single byte first is the cheapest test.
    if b"\\" in text and b"\\u0000" in text:
        return None
    if b"null" in text and not _is_plain(value):
        return None
    return text


_decode: Final = Decoder().decode
_decoder: Final = json.JSONDecoder()


def loads(content: str | bytes) -> Any:
    """The value of JSON as the server writes it: without blanks before it, in UTF-8.

    Not orjson, which reads integers beyond 64 bits as floats. The standard library reads what
    msgspec refuses, numbers beyond a double. `json.loads` would look for other encodings first.
    """
    try:
        return _decode(content)
    except MsgspecError:
        pass
    return _decoder.raw_decode(content if isinstance(content, str) else str(content, "utf-8"))[0]


def decode(encoded: bytes | None) -> Any:
    """The value that `encode` was given."""
    return None if encoded is None else json.loads(encoded[1:])


def canonical(value: Any) -> str:
    """The repaired value as JSON text with sorted keys: equal values give equal text.

    Numbers of unlike types are not equal here: 1 is not 1.0. The text depends neither on the host
    nor on the version of a library, so that ids can be computed from it.

    Raises:
        ValidationError: as `dumps` does.
    """
    return canonical_bytes(value).decode()


def canonical_bytes(value: Any, unsure: Any = ...) -> bytes:
    """The text of `canonical` in UTF-8.

    Args:
        unsure: a list of the parts that are not surely text, integers, booleans, None, times in UTC
            or what `shared` returns; by default, any part.
    """
    try:
        text = orjson.dumps(value, option=_SORTED)
    except TypeError:
        pass  # the careful way knows better
    else:
        is_unclean = b"\\" in text and b"\\u0000" in text
        if not is_unclean and _is_plain(value if unsure is ... else unsure):
            return text
    try:
        return written(PlainJson().of(value), sort_keys=True).encode()
    except (RecursionError, ValueError) as error:
        raise _not_json("value", error) from None


def shared(value: Any) -> Any:
    """The value for `canonical`, as a part of many values, so that it is written once."""
    return orjson.Fragment(canonical_bytes(value))


def _is_clean(value: Any) -> bool:
    """Whether in a value that orjson has written there is neither NUL nor what it writes as null.

    This looks at the values of an object, which takes less time than to look through a long text.
    False also means that this cannot tell.
    """
    if type(value) is str:
        return "\0" not in value
    if type(value) is not dict:
        return False
    for key, item in value.items():
        kind = type(item)
        if kind is str:
            if "\0" in item:
                return False
        elif kind is list:
            if not (_TEXT.issuperset(map(type, item)) and "\0" not in "".join(item)):
                return False
        elif kind is float:
            if not isfinite(item):
                return False
        elif kind is not int and kind is not bool:
            return False
        if "\0" in key:
            return False
    return True


def _is_plain(value: Any) -> bool:
    """Whether all is of JSON's own types, and no number among it needs a closer look.

    The value must have an end: ask orjson first.
    """
    pending = [value]
    while pending:
        item = pending.pop()
        kind = type(item)
        if kind is dict or kind is list or kind is tuple:
            inside = item.values() if kind is dict else item
            if not _LEAVES.issuperset(map(type, inside)):
                pending += [each for each in inside if type(each) not in _LEAVES]
        elif kind is float:
            # False for NaN too.
            if not (item == 0 or _LEAST_PLAIN <= abs(item) < _LEAST_LARGE):
                return False
        elif kind not in _LEAVES and (kind is not datetime or item.tzinfo is not UTC):
            return False
    return True


def _careful(value: Any, field: str) -> tuple[bytes, PlainJson, Any]:
    conversion = PlainJson()
    plain = conversion.of(value)
    try:
        try:
            return orjson.dumps(plain), conversion, plain
        except TypeError:  # an integer beyond 64 bits, or deeper than orjson goes
            return written(plain).encode(), conversion, plain
    except (RecursionError, ValueError) as error:
        raise _not_json(field, error) from None


def _not_json(field: str, error: Exception) -> ValidationError:
    # The caller's stack is nearly full, or Python was told to write fewer digits.
    return ValidationError(field, "…", f"is not JSON: {error}")
