"""The conditions under which an item is dropped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from observatory_storage.config import DropRule
from observatory_storage.plain_json import PlainJson, key_text, written
from observatory_storage.rows.attribute_keys import ATTRIBUTE_COLUMNS
from observatory_storage.rows.text_columns import TEXT_COLUMNS, glob
from observatory_storage.tables import TableDefinition

__all__ = ["Condition"]


class Condition(NamedTuple):
    """A compiled `DropRule`: an item that meets all of it is dropped."""

    signal: str | None
    scope: re.Pattern[str] | None
    name: re.Pattern[str] | None
    attribute: re.Pattern[str] | None
    pattern: re.Pattern[str] | None

    @classmethod
    def of(cls, rule: DropRule) -> Condition:
        scope, name, attribute = (
            None if text is None else glob(text) for text in (rule.scope, rule.name, rule.attribute)
        )
        pattern = None if rule.pattern is None else re.compile(rule.pattern)
        return cls(rule.signal, scope, name, attribute, pattern)

    def is_met(
        self,
        table: TableDefinition,
        signal: str,
        scope: object,
        name: object,
        row: Mapping[str, Any],
    ) -> bool:
        if self.signal is not None and self.signal != signal:
            return False
        for pattern, text in ((self.scope, scope), (self.name, name)):
            if pattern is not None and not (isinstance(text, str) and pattern.match(text)):
                return False
        if self.attribute is not None:
            values = self._attributes(row, self.attribute)
            return any(self.pattern is None or self._is_found(value) for value in values)
        if self.pattern is None:
            return True
        return any(self.pattern.search(text) for text in _texts_of(table, row))

    @staticmethod
    def _attributes(row: Mapping[str, Any], keys: re.Pattern[str]) -> Iterator[Any]:
        for column in ATTRIBUTE_COLUMNS:
            given = row.get(column)
            if isinstance(given, Mapping):
                for key, value in given.items():
                    if keys.match(key if isinstance(key, str) else key_text(key)):
                        yield value

    def _is_found(self, value: Any) -> bool:
        assert self.pattern is not None
        plain = PlainJson().of(value)
        # A number is sought in as it is written in JSON.
        texts = _texts_in(plain) if isinstance(plain, (str, dict, list)) else (written(plain),)
        return any(self.pattern.search(text) for text in texts)


def _texts_of(table: TableDefinition, row: Mapping[str, Any]) -> Iterator[str]:
    for column in TEXT_COLUMNS[table.name] & row.keys():
        if isinstance(row[column], str):
            yield row[column]
    for column in (*ATTRIBUTE_COLUMNS, "body_json"):
        if row.get(column) is not None:
            yield from _texts_in(PlainJson().of(row[column]))


def _texts_in(plain: Any) -> Iterable[str]:
    pending = [plain]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list):
            pending += value
