"""Brings Python values into the types of JSON. It never raises, and always ends.

Values that JSON has stay what they are, apart from text and numbers that PostgreSQL cannot hold.
`docs/values.md` has the table of conversions for users. What is in no row of that table
becomes the text of its ``repr``, and is counted as repaired, as is everything that loses something.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import os
import re
import sys
from collections import UserString
from collections.abc import Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

import orjson

from observatory_storage.stored_json import StoredJson

__all__ = ["PlainJson", "clean_text", "key_text", "written"]

_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
_MOST_DIGITS: Final = 4000  # Python reads and writes no integers of more than 4,300
_MOST_BITS: Final = 14_284  # of an integer that Python surely writes in decimal
# Deeper values are cut: Python's own stack would end at a depth that depends on the caller.
_MOST_LEVELS: Final = 400
# Of objects that refer to each other, there may be endlessly many paths.
_MOST_REPEATS: Final = 100_000
_MAX_INT64: Final = 2**63 - 1
_CONTAINERS: Final = frozenset({dict, list, tuple})
_SHOWN_CHARACTERS: Final = 1000
_ADDRESS: Final = re.compile(r" at 0x[0-9A-Fa-f]+")


def clean_text(text: str) -> str:
    """The text with NUL and lone surrogates, which PostgreSQL cannot hold, as U+FFFD."""
    if text.isascii() and "\x00" not in text:
        return text
    cleaned = text.replace("\x00", _REPLACEMENT)
    try:
        cleaned.encode()
    except UnicodeEncodeError:
        # Pairs of surrogates that make a character become that character.
        cleaned = cleaned.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return cleaned


def written(plain: Any, *, sort_keys: bool = False) -> str:
    """The JSON text of a value in the types of JSON, of any depth and with integers of any size."""
    return json.dumps(
        plain, allow_nan=False, separators=(",", ":"), ensure_ascii=False, sort_keys=sort_keys
    )


def key_text(key: object) -> str:
    """The text that a key of a mapping becomes in JSON."""
    return PlainJson().key(key)


class PlainJson:
    """Converts one value.

    Attributes:
        repairs: how many values lost something.
        is_foreign: whether there was a value that a reader of plain JSON would not understand.
    """

    def __init__(self) -> None:
        self.repairs = 0
        self.is_foreign = False
        self._within: set[int] = set()
        # The objects themselves are kept, so that no other object gets the id of one.
        self._seen: dict[int, object] = {}
        self._repeats = 0

    def of(self, value: Any) -> Any:
        """The value in the types of JSON."""
        # One function for all kinds of values: a call for each level is as deep as Python's stack
        # reaches.
        kind = type(value)
        if kind is str:
            return self._text(value)
        entered = False
        try:
            if (
                value is None
                or kind is bool
                or (kind is int and -_MAX_INT64 <= value <= _MAX_INT64)
            ):
                return value
            if kind is StoredJson:
                self.is_foreign = True
                return self.of(value.load())
            if isinstance(value, Enum):
                self.is_foreign = True
                return self.of(value.value)
            if isinstance(value, str):
                return self._text(str.__str__(value))
            if isinstance(value, (int, float, Decimal)):
                return self._number(value)
            if isinstance(value, (UUID, datetime, date, time)):
                return str(value) if isinstance(value, UUID) else value.isoformat()
            if kind in _CONTAINERS:
                inside = value
            else:
                inside = self._converted(value)
                if isinstance(inside, str) or not isinstance(
                    inside, (Mapping, Sequence, AbstractSet, ValuesView)
                ):
                    return inside
            refused = self._refusal(value)
            if refused is not None:
                self.repairs += 1
                return f"<{type(value).__name__} {refused}>"
            entered = True
            self._within.add(id(value))
            if kind is dict or isinstance(inside, Mapping):
                named: dict[str, Any] = {}
                count = 0
                for key, item in inside.items():
                    named[self.key(key)] = self.of(item)
                    count += 1
                self.repairs += count - len(named)
                return named
            items = []
            for item in inside:
                items.append(self.of(item))  # noqa: PERF401 - a comprehension is another frame
            is_set = kind not in _CONTAINERS and isinstance(inside, AbstractSet)
            return _sorted(items) if is_set else items
        except Exception:  # noqa: BLE001 - the value's own code may raise anything
            return self._unknown(value)
        finally:
            if entered:
                self._within.discard(id(value))

    def key(self, key: object) -> str:
        """The text that a key of a mapping becomes."""
        if type(key) is str:
            return self._text(key)
        plain = self.of(key)
        return plain if isinstance(plain, str) else written(plain)

    def _refusal(self, value: object) -> str | None:
        """Why a container is not entered; None if it is."""
        key = id(value)
        if key in self._within:
            return "that contains itself"
        if len(self._within) >= _MOST_LEVELS:
            return "nested too deeply"
        if key in self._seen:
            self._repeats += 1
            if self._repeats > _MOST_REPEATS:
                return "repeated too often"
        self._seen[key] = value
        return None

    def _converted(self, value: Any) -> Any:
        """A mapping or a collection whose items are to be converted; or a value of JSON."""
        if isinstance(value, (Mapping, AbstractSet)) and not isinstance(value, tuple):
            self.is_foreign = self.is_foreign or isinstance(value, AbstractSet)
            return value
        if isinstance(value, orjson.Fragment):
            return json.loads(orjson.dumps(value))
        self.is_foreign = True
        kind = type(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return base64.b64encode(value).decode()
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            return {name: getattr(value, name) for name in kind._fields}
        if isinstance(value, UserString):
            return self._text(str(value.data))
        if isinstance(value, timedelta):
            seconds = value.total_seconds()
            return int(seconds) if seconds.is_integer() else seconds
        if isinstance(value, (Sequence, ValuesView)):
            return value
        if isinstance(value, BaseException):
            return self._text(_of_error(value))
        if isinstance(value, os.PathLike):
            return self._text(os.fsdecode(value))
        if isinstance(value, complex):
            return str(value)
        if isinstance(value, type):
            return self._text(f"{value.__module__}.{value.__qualname__}")
        if _is_instance(value, "numpy", "generic"):
            return self._scalar(value)
        if _is_instance(value, "numpy", "ndarray"):
            return list(value) if value.ndim else self.of(value[()])
        if _is_instance(value, "pydantic", "BaseModel"):
            return value.model_dump(warnings=False)
        if dataclasses.is_dataclass(kind):
            return {each.name: getattr(value, each.name) for each in dataclasses.fields(kind)}
        if hasattr(kind, "__attrs_attrs__"):
            return {each.name: getattr(value, each.name) for each in kind.__attrs_attrs__}
        if hasattr(kind, "__struct_fields__"):  # of msgspec
            return {name: getattr(value, name) for name in kind.__struct_fields__}
        return self._unknown(value)

    def _scalar(self, value: Any) -> Any:
        """A scalar of numpy. Those that are Python's own too were known before."""
        match value.dtype.kind:
            case "b" | "i" | "u":
                return value.item()
            case "f":
                return self._number(float(value))
            case "m":
                numpy = sys.modules["numpy"]
                return self._number(float(value / numpy.timedelta64(1, "s")))
            case "V":
                return value.item()  # a record, as a tuple
            case _:
                return self._text(str(value))  # a time, a complex number

    def _text(self, value: str) -> str:
        cleaned = clean_text(value)
        self.repairs += cleaned != value
        return cleaned

    def _number(self, value: float | Decimal) -> int | float | str:
        if isinstance(value, int):
            if value.bit_length() <= _MOST_BITS:
                return int(value)
            self.repairs += 1
            return f"<integer of {value.bit_length()} bits>"
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else self._named(value)
        if not value.is_finite():
            return self._named(math.nan if value.is_nan() else float(value))
        # Checked before it is written out: 1E+999999999 is short, its digits are not.
        if value.adjusted() > _MOST_DIGITS:
            self.repairs += 1
            return str(value)
        nearest = float(value)
        if math.isinf(nearest) or value == value.to_integral_value():
            return int(value)
        return nearest

    def _named(self, value: float) -> str:
        self.repairs += 1
        if math.isnan(value):
            return "NaN"
        return "Infinity" if value > 0 else "-Infinity"

    def _unknown(self, value: object) -> str:
        """What the value says of itself, without the address that would differ each time."""
        self.repairs += 1
        self.is_foreign = True
        name = type(value).__name__
        if isinstance(value, (Mapping, Sequence, AbstractSet)):
            return f"<{name}>"  # its text would have no end where it has many parts
        try:
            text = clean_text(_ADDRESS.sub("", repr(value)))
        except Exception:  # noqa: BLE001 - the value's own code
            text = f"<{name}>"
        return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _is_instance(value: object, module: str, name: str) -> bool:
    """Whether the value is of a class whose module the application has imported."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def _of_error(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ != "builtins":
        name = f"{kind.__module__}.{name}"
    message = str(error)
    return f"{name}: {message}" if message else name


def _sorted(items: list[Any]) -> list[Any]:
    """The items of a set in an order of their own: that of the set differs in each process."""
    try:
        return sorted(items)
    except TypeError:  # of several types
        return sorted(items, key=lambda item: written(item, sort_keys=True))
