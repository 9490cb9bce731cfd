"""Checks of single values: each returns the value to write, or raises `Refused`.

JSON is encoded after its check.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from observatory_storage.errors import ValidationError
from observatory_storage.ids import MAX_NAME_BYTES

__all__ = [
    "MAX_INT64",
    "Check",
    "Refused",
    "anything",
    "array_of",
    "buckets",
    "choice",
    "cost",
    "flag",
    "integer",
    "link",
    "mapping",
    "name",
    "no_previews",
    "non_negative",
    "number",
    "quantile",
    "text",
    "time",
]

Check = Callable[[Any], Any]

MAX_INT64: Final = 2**63 - 1
_COST_EXPONENT: Final = 100
_COST_DECIMALS: Final = 200
# A double has at most 17 digits, so that doubles between these meet both limits.
_LEAST_SURE_COST: Final = 1e-90
_GREATEST_SURE_COST: Final = 1e90
_HEX = re.compile(r"[0-9a-fA-F]*")
# How doubles that JSON numbers cannot represent are written.
_NUMBERS_AS_TEXT: Final = ("NaN", "Infinity", "-Infinity")


class Refused(ValueError):
    """A value breaks a rule, which is the message.

    Attributes:
        place: where in the column the value is, such as ``[0].span_id``; empty if it is all of it.
        value: the value at this place.
    """

    def __init__(self, rule: str, place: str = "", value: Any = None) -> None:
        super().__init__(rule)
        self.place, self.value = place, value

    def of(self, column: str, value: Any) -> ValidationError:
        """The error for a value of a column. It names the place within the value."""
        return ValidationError(
            f"{column}{self.place}", self.value if self.place else value, str(self)
        )


def text(value: Any) -> str:
    """Text of any length and content."""
    if type(value) is str:
        return value
    if isinstance(value, str):
        # The text of an enum member; a driver may write the name of the member instead.
        return str.__str__(value)
    raise Refused("must be text")


def name(value: Any) -> str:
    """Text that an indexed column takes."""
    if type(value) is not str:
        value = text(value)
    if not value:
        raise Refused("must not be empty")
    # A character has at most four bytes, so only a long name is measured. A NUL is replaced by
    # U+FFFD, which has three.
    if len(value) * 4 > MAX_NAME_BYTES:
        size = len(value.encode("utf-8", "surrogatepass")) + 2 * value.count("\x00")
        if size > MAX_NAME_BYTES:
            raise Refused(f"must have at most {MAX_NAME_BYTES} bytes of UTF-8")
    named: str = value
    return named


def choice(values: tuple[str, ...]) -> Check:
    """One of the texts."""
    known = {value: value for value in values}
    rule = f"must be one of {', '.join(values)}"

    def check(value: Any) -> str:
        found = known.get(value) if isinstance(value, str) else None
        if found is None:
            raise Refused(rule)
        return found

    return check


def integer(lowest: int, highest: int) -> Check:
    """An integer within the bounds, both included."""
    rule = f"must be from {lowest} to {highest}"

    def check(value: Any) -> int:
        if type(value) is not int:
            if isinstance(value, bool) or not isinstance(value, int):
                raise Refused("must be an integer")
            value = int(value)
        if not lowest <= value <= highest:
            raise Refused(rule)
        return int(value)

    return check


def number(value: Any) -> float:
    """A finite number, as a double."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise Refused("must be a number")
    try:
        result = float(value)
    except OverflowError:
        raise Refused("must fit a double") from None
    except ValueError:  # a signalling NaN
        result = math.nan
    if not math.isfinite(result):
        raise Refused("must be a finite number")
    return result


def non_negative(value: Any) -> float:
    """A finite number from zero on, as a double."""
    result = number(value)
    if result < 0:
        raise Refused("must not be less than 0")
    return result


def cost(value: Any) -> Decimal:
    """US dollars, exactly as they are written in decimal."""
    if type(value) is float and _LEAST_SURE_COST <= value <= _GREATEST_SURE_COST:
        return Decimal(repr(value))
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str)):
        raise Refused("must be a number")
    try:
        # A float's shortest text is what its writer meant: 0.1, not 0.1000000000000000055…
        result = Decimal(float.__repr__(value) if isinstance(value, float) else value)
    except InvalidOperation:
        raise Refused("must be a number") from None
    if not result.is_finite() or result < 0:
        raise Refused("must be a finite number, not negative")
    if result and abs(result.adjusted()) > _COST_EXPONENT:
        raise Refused(f"must have an exponent within {_COST_EXPONENT}")
    exponent = result.as_tuple().exponent
    if isinstance(exponent, int) and not -_COST_DECIMALS <= exponent <= _COST_EXPONENT:
        raise Refused(f"must have at most {_COST_DECIMALS} decimals")
    return result


def time(value: Any) -> datetime:
    """The time in UTC.

    Python compares and subtracts two times of one zone by wall clock time, which is wrong across a
    change of daylight saving time. In UTC it is right.
    """
    moment: datetime = value if type(value) is datetime else _plain_time(value)
    if moment.tzinfo is UTC:
        return moment
    if moment.utcoffset() is None:
        raise Refused("must have a time zone")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise Refused("must be within the years 1 to 9999 in UTC") from None


def _plain_time(value: Any) -> datetime:
    """A time of a subclass (of pandas or pendulum) as a plain datetime, which the driver knows."""
    if not isinstance(value, datetime):
        raise Refused("must be a datetime")
    try:
        return datetime(
            value.year,
            value.month,
            value.day,
            value.hour,
            value.minute,
            value.second,
            value.microsecond,
            tzinfo=value.tzinfo,
            fold=value.fold,
        )
    except (TypeError, ValueError):  # pandas' NaT
        raise Refused("must be a datetime") from None


def flag(value: Any) -> bool:
    """True or False; truthy values such as 1 are refused."""
    if not isinstance(value, bool):
        raise Refused("must be true or false")
    return value


def mapping(value: Any) -> dict[Any, Any]:
    """A JSON object."""
    if type(value) is dict:
        return value
    if not isinstance(value, Mapping):
        raise Refused("must be a mapping")
    return dict(value)


def array_of(check_item: Callable[[Any], None] | None = None) -> Check:
    """A JSON array of objects, each of which passes the given check."""

    def check(value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise Refused("must be a list")
        for index, item in enumerate(value):
            place = f"[{index}]"
            if not isinstance(item, Mapping):
                raise Refused("must be a mapping", place, item)
            if check_item is not None:
                try:
                    check_item(item)
                except Refused as refused:
                    raise Refused(str(refused), place + refused.place, refused.value) from None
        return value

    return check


def anything(value: Any) -> Any:
    """Any JSON value. Encoding refuses other values."""
    return value


def no_previews(value: Any) -> Any:
    """The payload frame of a row that was read: without one, its attributes are whole."""
    raise Refused("must be None, as the attributes are previews: call `open_payloads` before")


def link(value: Mapping[str, Any]) -> None:
    """A link of a span; OTLP lets the ids be empty, and of any length."""
    span_id = value.get("span_id", "")
    if not isinstance(span_id, str) or _HEX.fullmatch(span_id) is None:
        raise Refused("must be hex digits", ".span_id", span_id)


def quantile(value: Mapping[str, Any]) -> None:
    """A quantile of a summary, and its value."""
    rank = value.get("quantile")
    if isinstance(rank, bool) or not isinstance(rank, (int, float)) or not 0 <= rank <= 1:
        raise Refused("must be a number from 0 to 1", ".quantile", rank)
    if not _is_number(value.get("value")):
        raise Refused("must be a number", ".value", value.get("value"))


def buckets(value: Any) -> dict[Any, Any]:
    """The buckets of a histogram: `bounds` and `counts`, or those of an exponential one."""
    given = mapping(value)
    _check_each("counts", given, _is_count, "")
    _check_each("bounds", given, _is_number, "")
    if not _is_count(given.get("zero_count", 0)):
        raise Refused("must be an integer, not negative", ".zero_count", given["zero_count"])
    for side in ("positive", "negative"):
        if side in given:
            if not isinstance(given[side], Mapping):
                raise Refused("must be a mapping", f".{side}", given[side])
            _check_each("counts", given[side], _is_count, f".{side}")
    return given


def _check_each(
    name: str, given: Mapping[str, Any], is_right: Callable[[Any], bool], place: str
) -> None:
    values = given.get(name, ())
    place = f"{place}.{name}"
    if not isinstance(values, (list, tuple)):
        raise Refused("must be a list", place, values)
    if all(map(is_right, values)):
        return
    for index, value in enumerate(values):
        if not is_right(value):
            rule = "an integer, not negative" if is_right is _is_count else "a number"
            raise Refused(f"must be {rule}", f"{place}[{index}]", value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return value in _NUMBERS_AS_TEXT
    return isinstance(value, (int, float)) and not isinstance(value, bool)
