"""What Citus refuses, or runs wrongly, in a statement on a table that it distributes.

`tests/conftest.py` has each statement checked that the package emits in any test, so that the rules
are kept where no Citus is at hand. Statements that are written differently for shards are listed
here by what tells them apart, each with the place that knows the other form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import sqlalchemy as sa

from observatory_storage.tables import DISTRIBUTED, REFERENCE_TABLES

_SHARDED: Final = "|".join(table.name for table in DISTRIBUTED)
_KNOWN: Final = "|".join((*(table.name for table in DISTRIBUTED), *REFERENCE_TABLES))
# In any schema, and a partition as its table.
_NAME: Final = r'(?:"?\w+"?\.)?"?(?:{})(?:_p\w+)?"?\b'
_ON_SHARDS: Final = re.compile(_NAME.format(_SHARDED))
_BIND: Final = re.compile(r"%\(\w+\)s|%s|\$\d")
_VOLATILE: Final = re.compile(r"\b(?:clock_timestamp|random|gen_random_uuid|nextval|timeofday)\(")
_CHANGING: Final = re.compile(
    r"\b(?:now|statement_timestamp|transaction_timestamp)\(|\bcurrent_timestamp\b"
)
# Functions that PostgreSQL calls stable, because what they return depends on settings.
_STABLE: Final = re.compile(
    r"\b(?:jsonb?_build_(?:object|array)|to_jsonb?|concat|concat_ws|format|to_char|date_trunc)\("
)
_CASE: Final = re.compile(r"\bCASE\b(.*?)\bEND\b", re.IGNORECASE)
_INTO: Final = re.compile(rf"INSERT INTO {_NAME.format(_KNOWN)}", re.IGNORECASE)
_CHANGE: Final = re.compile(
    rf"(?:UPDATE|DELETE FROM|INSERT INTO) {_NAME.format(_KNOWN)}", re.IGNORECASE
)
_DO_UPDATE: Final = re.compile(r"\bDO UPDATE SET (.*?)(?: RETURNING |$)", re.IGNORECASE)
_OPENING: Final = re.compile(r"\b(LATERAL|EXISTS|RECURSIVE) ?\(?", re.IGNORECASE)
_LIMITED: Final = re.compile(r"\b(?:LIMIT|OFFSET)\b", re.IGNORECASE)
_LOCKING: Final = re.compile(r"\bFOR (?:NO KEY |KEY )?(?:UPDATE|SHARE)\b")
_FROM: Final = re.compile(rf"\b(?:FROM|JOIN) {_NAME.format(_SHARDED)}", re.IGNORECASE)
_RETURNED: Final = re.compile(r"\bRETURNING (.*?)\)? ?(?:,|SELECT|$)", re.IGNORECASE)

# What a statement has that is written differently for shards -> where that is decided.
OTHERWISE_ON_SHARDS: Final = {
    ") AS named ON": "candidates._logged and JsonSearch: shards join spans with records",
    ") AS later ON": "SessionSearch._found: all spans of the sessions are grouped",
    ") AS matching ON": "SessionSearch._found: all spans of the sessions are grouped",
    ") AS span ON": "span_filling._finding_lacking: a join without OFFSET",
    ") AS one ON": "usage_settlement._finding_names: a join without LIMIT",
    ") AS locked": "trace_sweep.sweep: the shards are given the ids",
    ") AS newest ON": "PointReader.look_back_start: the latest point of all metrics",
    "AS body_json_text": "converted_rows.locked_rows: records are locked by their ids",
    "FOR UPDATE OF log_frames": "stored_frames._locking: the shards are given the ids",
    "FOR UPDATE OF payload_frames": "stored_frames._locking: the shards are given the ids",
    "OFFSET 0) r": "SparedRows._rows: a join without OFFSET",
    "pg_temp.deleted_traces.hex =": "deletion._is_one_of: the shards are given the ids",
    "WITH RECURSIVE names": "service_names._services_of_spans: a statement for each name",
    "WITH RECURSIVE operations": "service_names._operations_of_spans: a statement for each one",
}


# A view is checked when somebody reads it.
_DEFINITIONS: Final = ("CREATE ", "COMMENT ", "ALTER ", "DO ")


def violations(statement: str) -> list[str]:
    """The rules that a statement breaks."""
    text = " ".join(statement.split())
    if text.startswith(_DEFINITIONS) or any(part in text for part in OTHERWISE_ON_SHARDS):
        return []
    return list(_violations(text))


def _violations(text: str) -> Iterator[str]:
    if _INTO.search(text):
        for changed in _DO_UPDATE.findall(text):
            if "SELECT" in text.partition("ON CONFLICT")[0] and _BIND.search(changed):
                yield "ON CONFLICT of INSERT … SELECT has a parameter: write a literal"
            if _VOLATILE.search(changed) or _CHANGING.search(changed):
                yield "DO UPDATE has a function that is not immutable: use excluded"
    if _CHANGE.search(text):
        if _VOLATILE.search(text):
            yield "a volatile function changes a table with shards"
        if text.startswith("UPDATE") and any(map(_STABLE.search, _CASE.findall(text))):
            yield "CASE of a change has a function that is not immutable"
        for returned in _RETURNED.findall(text):
            if re.search(r"date_trunc\(|to_char\(", returned):
                yield "RETURNING has a function that is not immutable"
    if _LOCKING.search(text) and any(
        table.name in found and not _of_values(table.distributed_by).search(text)
        for found in _FROM.findall(text)
        for table in DISTRIBUTED
    ):
        yield "rows are locked on several shards: give it the ids of one (`ids_by_shard`)"
    for word, inner in _parts(text):
        if word == "EXISTS" and "pg_temp." in inner and _CHANGE.search(text):
            yield "EXISTS on a temporary table: make it a CTE"
        if word == "LATERAL" and _ON_SHARDS.search(inner) and _LIMITED.search(inner):
            yield "a lateral join with LIMIT or OFFSET on a table with shards"
    if "WITH RECURSIVE" in text.upper() and _ON_SHARDS.search(text):
        yield "a recursive query on a table with shards"


def _of_values(column: str | None) -> re.Pattern[str]:
    """The condition that a column has one of some values that are given."""
    return re.compile(rf"\b{column} = (?:ANY ?\()?(?:{_BIND.pattern})", re.IGNORECASE)


def _parts(text: str) -> Iterator[tuple[str, str]]:
    """The words LATERAL and EXISTS, each with what stands in its parentheses."""
    for found in _OPENING.finditer(text):
        if not found[0].endswith("("):
            continue
        depth, end = 1, found.end()
        while depth and end < len(text):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        yield found[1].upper(), text[found.end() : end]


class Listener:
    """Checks each statement of any engine once.

    Attributes:
        broken: the statements that break rules, with these.
    """

    def __init__(self) -> None:
        self.broken: dict[str, list[str]] = {}
        self._seen: set[int] = set()

    def listen(self) -> None:
        sa.event.listen(sa.Engine, "before_cursor_execute", self._check)

    def _check(self, _connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        # Values in the text make many statements of one: only its beginning and length are kept.
        key = hash((statement[:2000], len(statement)))
        if key in self._seen:
            return
        self._seen.add(key)
        if found := violations(statement):
            self.broken[statement] = found
