"""Replaces what regular expressions find in the texts of a row."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any, Final

from observatory_storage.config import RedactRule
from observatory_storage.ids import MAX_NAME_BYTES
from observatory_storage.plain_json import PlainJson, key_text
from observatory_storage.rows.attribute_keys import ATTRIBUTE_COLUMNS
from observatory_storage.rows.text_columns import NAME_COLUMNS, TEXT_COLUMNS, glob

__all__ = ["Redaction"]

_REDACTED: Final = "[redacted]"
_Patterns = tuple[tuple[re.Pattern[str], str], ...]
_LEAVES: Final = (int, float, bool, NoneType)
# The strings of ``otlp`` that senders write; all others are words of this package.
_NOTED_TEXTS: Final = ("name", "trace_state")
# The objects of links and exemplars are numbers and identifiers apart from these.
_OF_OBJECTS: Final = ("trace_state",)
_MOST_KNOWN_KEYS: Final = 10_000


class Redaction:
    """The compiled rules.

    Args:
        rules: the rules of the configuration, which are applied in their order.
    """

    def __init__(self, rules: Iterable[RedactRule]) -> None:
        self._rules = [
            (
                None if rule.attribute is None else glob(rule.attribute),
                re.compile(rule.pattern),
                rule.replacement,
            )
            for rule in rules
        ]
        self._anywhere: _Patterns = tuple(
            (pattern, replacement) for key, pattern, replacement in self._rules if key is None
        )
        self._of_keys: dict[str, _Patterns] = {}

    def row(self, table: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row with redacted texts; the same object if nothing is found."""
        changed: dict[str, Any] = {}
        texts = TEXT_COLUMNS[table]
        for column, value in row.items():
            if column in texts:
                new = self._column(column, value)
            elif column in ATTRIBUTE_COLUMNS:
                new = self._attributes(value)
            elif column in ("links", "exemplars"):
                new = self._objects(value)
            elif column == "body_json":
                new = self._value(value, self._anywhere)
            elif column == "otlp":
                new = self._otlp(value)
            else:
                continue
            if new is not value:
                changed[column] = new
        return {**row, **changed} if changed else row

    def _column(self, column: str, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        text = str.__str__(value)
        new = self._text(text, self._anywhere)
        if new == text:
            return value
        if column in NAME_COLUMNS:  # must not be empty, nor too long for an index
            new = new.encode("utf-8", "replace")[:MAX_NAME_BYTES].decode("utf-8", "ignore")
            return new or _REDACTED
        return new

    def _attributes(self, given: Any) -> Any:
        """Attributes with redacted values. Their keys stay: other rules drop or rename them."""
        if not isinstance(given, Mapping):
            return given
        changed = {
            key: new
            for key, value in given.items()
            if (new := self._value(value, self._patterns_of(key))) is not value
        }
        return {**given, **changed} if changed else given

    def _patterns_of(self, key: object) -> _Patterns:
        """The rules for the value of an attribute."""
        text = key if isinstance(key, str) else key_text(key)
        found = self._of_keys.get(text)
        if found is None:
            found = tuple(
                (pattern, replacement)
                for keys, pattern, replacement in self._rules
                if keys is None or keys.match(text)
            )
            if len(self._of_keys) < _MOST_KNOWN_KEYS:
                self._of_keys[text] = found
        return found

    def _objects(self, given: Any) -> Any:
        if not isinstance(given, (list, tuple)):
            return given
        redacted = [self._object(item) if isinstance(item, Mapping) else item for item in given]
        unchanged = all(new is old for new, old in zip(redacted, given, strict=True))
        return given if unchanged else redacted

    def _object(self, item: Mapping[str, Any]) -> Mapping[str, Any]:
        changed = {}
        for key, value in item.items():
            if key == "attributes":
                new = self._attributes(value)
            elif key in _OF_OBJECTS:
                new = self._value(value, self._anywhere)
            else:
                continue
            if new is not value:
                changed[key] = new
        return {**item, **changed} if changed else item

    def _otlp(self, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        changed = {}
        for key, value in given.items():
            new = (
                self._value(value, self._anywhere)
                if key in _NOTED_TEXTS
                else self._note(value, None)
            )
            if new is not value:
                changed[key] = new
        return {**given, **changed} if changed else given

    def _note(self, note: Any, patterns: _Patterns | None) -> Any:
        """A note, with redacted values where it has all pairs of a map."""
        if isinstance(note, Mapping):
            changed = {
                key: new
                for key, inner in note.items()
                if (new := self._note(inner, patterns)) is not inner
            }
            return {**note, **changed} if changed else note
        if not isinstance(note, list):
            return note
        entries = []
        for entry in note:
            if not isinstance(entry, Mapping) or "key" not in entry:
                entries.append(entry)
                continue
            own = self._patterns_of(entry["key"]) if patterns is None else patterns
            inner = {
                key: self._value(value, own) if key == "value" else self._note(value, own)
                for key, value in entry.items()
            }
            entries.append(inner)
        return note if entries == note else entries

    def _value(self, value: Any, patterns: _Patterns) -> Any:
        """A value of JSON with redacted texts and inner keys; the same object if none changes."""
        if not patterns:
            return value
        try:
            return self._walk(value, patterns)
        except RecursionError:
            pass
        try:
            return self._walk(PlainJson().of(value), patterns)  # cut where it has no end
        except RecursionError:
            return _REDACTED

    def _walk(self, value: Any, patterns: _Patterns) -> Any:
        kind = type(value)
        if kind is str:
            new = self._text(value, patterns)
            return value if new == value else new
        if kind in _LEAVES:
            return value
        if kind is dict:
            same, named = True, {}
            for key, item in value.items():
                text = key if type(key) is str else key_text(key)
                new_key = self._text(text, patterns)
                inner = self._walk(item, patterns)
                same = same and new_key == text and inner is item
                named[key if new_key == text else new_key] = inner
            return value if same else named
        if kind is list or kind is tuple:
            items = [self._walk(item, patterns) for item in value]
            same = all(new is old for new, old in zip(items, value, strict=True))
            return value if same else items
        # What JSON does not have: if nothing is found in it, it is converted and counted later.
        plain = PlainJson().of(value)
        redacted = self._walk(plain, patterns)
        return value if redacted is plain else redacted

    def _text(self, text: str, patterns: _Patterns) -> str:
        if text.lstrip()[:1] in ("{", "["):
            text = self._json_text(text, patterns)
        for pattern, replacement in patterns:
            text = pattern.sub(replacement, text)
        return text

    def _json_text(self, text: str, patterns: _Patterns) -> str:
        """JSON in text: a text in it may be written with escapes, which a pattern does not know."""
        try:
            parsed = json.loads(text)
            redacted = self._walk(parsed, patterns)
        except (ValueError, RecursionError):
            return text
        return text if redacted is parsed else json.dumps(redacted, ensure_ascii=False)
