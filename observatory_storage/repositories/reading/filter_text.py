"""Filters written as text: ``service:chat status:error duration>2s model:gpt-4o* "a phrase"``.

The names of fields are derived from the filters: ``service`` is ``service_name``, and
``duration>2s`` is ``min_duration_us``. Words become ``text``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Context, Decimal, InvalidOperation
from difflib import get_close_matches
from typing import Any, Final, Protocol

from observatory_storage.errors import ValidationError
from observatory_storage.repositories.reading import text_values, validation
from observatory_storage.repositories.reading.filter_grammar import (
    ATTRIBUTE,
    Term,
    Value,
    Word,
    mistake,
    terms_of,
    unquoted,
)
from observatory_storage.repositories.reading.operators import Exists, Not, OneOf, Prefix
from observatory_storage.times import MICROSECOND

__all__ = ["fields_of"]

# Names that cannot be derived from the names of fields.
_ALIASES: Final = {
    "level": "min_severity",
    "severity": "min_severity",
    "since": "start_time",
    "until": "end_time",
}
_RANGES: Final = {
    "duration": ("min_duration_us", "max_duration_us"),
    "tokens": ("min_tokens", "max_tokens"),
    "cost": ("min_cost_usd", "max_cost_usd"),
    "start": ("start_time", "end_time"),
    "end": ("ended_after", "ended_before"),
}
# Costs have fewer digits, so no cost lies between a number and the next one in this context.
_EXACT: Final = Context(prec=60, Emin=-120)


class _Rule(Protocol):
    """A rule of a field; see `filter_fields.FieldRule`."""

    @property
    def takes_operators(self) -> bool: ...
    @property
    def check(self) -> Callable[[str, Any], Any]: ...
    def checked(self, name: str, value: Any) -> Any: ...


def _cost(text: str) -> Decimal:
    try:
        found = Decimal(text)
    except InvalidOperation:
        found = Decimal("NaN")
    if not found.is_finite():
        raise ValueError(f"{text!r} is not a number")
    return found


def _integer(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is not true or false")
    return text == "true"


# The function that reads the values of a field, by the check of the field. The values of all other
# fields are text.
_READERS: Final[Mapping[Any, Callable[[str], Any]]] = {
    validation.moment: text_values.moment,
    validation.duration_us: text_values.duration,
    validation.number: _cost,
    validation.count: _integer,
    validation.flag: _flag,
}


def fields_of(rules: Mapping[str, _Rule], text: object) -> dict[str, Any]:
    """The fields that the text sets, as keywords for the filters that have these rules.

    Raises:
        ValidationError: the text is not understood, or a value is invalid. Its ``position`` is the
            index of the mistake in the text.
    """
    if not isinstance(text, str):
        raise ValidationError("filters", text, "must be text")
    setter = _Setter(rules, text)
    words: list[Word] = []
    for term in terms_of(text):
        if isinstance(term, Word):
            words.append(term)
        else:
            setter.take(term)
    if words:
        setter.search(words)
    return setter.found | ({"attributes": setter.attributes} if setter.attributes else {})


class _Setter:
    """Sets the fields that terms describe.

    Args:
        rules: the rules of the filters' fields.
        text: the filters.
    """

    def __init__(self, rules: Mapping[str, _Rule], text: str) -> None:
        self._rules = {name: rule for name, rule in rules.items() if name != "limit"}
        self._text = text
        self.found: dict[str, Any] = {}
        self.attributes: dict[str, Any] = {}

    def search(self, words: list[Word]) -> None:
        """Set the words to search for."""
        place = words[0].start, words[-1].end
        if "text" not in self._rules:
            raise mistake(self._text, *place, "there is no text to search: write field:value")
        self._set(self.found, "text", " ".join(word.text for word in words), *place)

    def take(self, term: Term) -> None:
        """Set the fields of a term."""
        is_least = term.operator == ">=" and term.name in {"level", "severity"}
        if term.name == "has" and term.operator == ":":
            for value in term.values:
                self._has(value, is_negated=term.is_negated)
        elif is_least or (term.operator == ":" and term.name not in _RANGES):
            self._match(term)
        elif term.is_negated or len(term.values) > 1:
            rule = "a range takes one value and no negation"
            raise mistake(self._text, term.start, term.end, rule)
        else:
            self._compare(term, *term.values)

    def _has(self, value: Value, *, is_negated: bool) -> None:
        place = value.start, value.end
        if value.text in _RANGES:
            raise mistake(self._text, *place, "has takes fields of text and attributes")
        store, key = self._target(value.text, *place)
        if not self._takes_operators(store, key):
            raise mistake(self._text, *place, "has takes fields of text and attributes")
        self._set(store, key, Not(Exists()) if is_negated else Exists(), *place)

    def _match(self, term: Term) -> None:
        """Set a field or an attribute to the values, or to an operator."""
        store, key = self._target(term.name, term.name_start, term.name_end)
        if not self._takes_operators(store, key):
            if term.is_negated or len(term.values) > 1:
                rule = f"{term.name} takes one value and no negation"
                raise mistake(self._text, term.start, term.end, rule)
            value = self._read(term.values[0], self._reader(key))
            self._set(store, key, value, term.start, term.end)
            return
        read = text_values.attribute if store is self.attributes else str
        each = [self._operand(value, read) for value in term.values]
        before = store.get(key)
        if term.is_negated and isinstance(before, Not):  # -a:1 -a:2 is the same as -a:1,2
            earlier = before.value
            each = [*(earlier.values if isinstance(earlier, OneOf) else [earlier]), *each]
            del store[key]
        wanted = each[0] if len(each) == 1 else OneOf(*each)
        self._set(store, key, Not(wanted) if term.is_negated else wanted, term.start, term.end)

    def _compare(self, term: Term, value: Value) -> None:
        """Set the bounds of a range."""
        lower, upper = _RANGES.get(term.name, ("", ""))
        after_name = term.name_end, value.start
        if lower not in self._rules:
            self._target(term.name, term.name_start, term.name_end)
            raise mistake(self._text, *after_name, f"{term.name} takes only : = and !=")
        is_time = self._rules[lower].check is validation.moment
        if is_time and term.operator == ":":
            raise mistake(self._text, *after_name, f"{term.name} takes only > >= < and <=")
        bound = self._read(value, self._reader(lower))
        try:
            bounds = {
                ":": lambda: {lower: bound, upper: bound},
                ">": lambda: {lower: _next(bound, 1)},
                ">=": lambda: {lower: bound},
                # The upper bound of a time is exclusive.
                "<": lambda: {upper: bound if is_time else _next(bound, -1)},
                "<=": lambda: {upper: _next(bound, 1) if is_time else bound},
            }[term.operator]()
        except OverflowError:
            raise mistake(self._text, value.start, value.end, "is out of range") from None
        for key, each in bounds.items():
            self._set(self.found, key, each, term.start, term.end)

    def _reader(self, field: str) -> Callable[[str], Any]:
        if field == "min_severity":
            return text_values.severity
        return _READERS.get(self._rules[field].check, str)

    def _operand(self, value: Value, read: Callable[[str], Any]) -> Any:
        if value.is_prefix:
            return Prefix(value.text) if value.text or value.is_quoted else Exists()
        return value.text if value.is_quoted else read(value.text)

    def _read(self, value: Value, read: Callable[[str], Any]) -> Any:
        try:
            return read(value.text + "*" * value.is_prefix)
        except ValueError as error:
            raise mistake(self._text, value.start, value.end, str(error)) from None

    def _takes_operators(self, store: dict[str, Any], key: str) -> bool:
        return store is self.attributes or self._rules[key].takes_operators

    def _set(self, store: dict[str, Any], key: str, value: Any, start: int, end: int) -> None:
        if key in store:
            rule = f"{key} is given twice; several values are written as field:a,b"
            raise mistake(self._text, start, end, rule)
        try:
            if store is self.attributes:
                validation.attributes("attributes", {key: value})
            else:
                self._rules[key].checked(key, value)
        except ValidationError as error:
            raise mistake(self._text, start, end, f"{error.field} {error.rule}") from error
        store[key] = value

    def _target(self, name: str, start: int, end: int) -> tuple[dict[str, Any], str]:
        """The attribute or the field that a name stands for."""
        if name.startswith(ATTRIBUTE) and "attributes" in self._rules:
            key = name.removeprefix(ATTRIBUTE)
            return self.attributes, unquoted(key[1:-1]) if key.startswith('"') else key
        fields = [field for field in self._rules if field != "attributes"]
        names = {short: field for field in fields for short in (_short(field), field)}
        names |= {alias: field for alias, field in _ALIASES.items() if field in fields}
        if name in names:
            return self.found, names[name]
        bounds = {field for pair in _RANGES.values() for field in pair}
        ranges = [one for one, (lower, _) in _RANGES.items() if lower in fields]
        known = [*(_short(field) for field in fields if field not in bounds), *ranges]
        near = get_close_matches(name, [*names, *known, "has"], n=1)
        advice = (
            f"did you mean {near[0]!r}?"
            if near
            else f"there are {', '.join(known)}, has and {ATTRIBUTE}KEY; words with such a sign"
            " stand in quotes"
        )
        raise mistake(self._text, start, end, f"there is no field {name!r}; {advice}")


def _next(value: Any, sign: int) -> Any:
    """The next value above (sign 1) or below (-1).

    Durations step by a nanosecond, times by a microsecond, integers by one.
    """
    match value:
        case Decimal():
            return value.next_plus(_EXACT) if sign > 0 else value.next_minus(_EXACT)
        case timedelta():
            return value // MICROSECOND + sign * Decimal("0.001")
        case datetime():
            return value + sign * MICROSECOND
        case _:
            return value + sign


def _short(field: str) -> str:
    return field.removesuffix("_name").removesuffix("_id")
