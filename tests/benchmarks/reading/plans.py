"""Summarises the plans of the statements of a query in one line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from observatory_storage import StoragePool
from observatory_storage.layout import is_partition
from tests.benchmarks.reading.question import Arguments, Question

__all__ = ["Plan", "plan_of"]

# The suffixes of names of partitions, and of their own indexes.
_SUFFIX: Final = re.compile(r"_(p\d{4,8}|past|future)(?=_|$)")
_DIGEST: Final = re.compile(r"_[0-9a-f]{8}$")


@dataclass(frozen=True)
class Plan:
    """The statements of one execution, by EXPLAIN (ANALYZE, BUFFERS).

    Attributes:
        reads: the indexes that are used, by their names on the table, and the tables that are read
            as a whole.
        partitions: the number of partitions that were read, of all tables.
        buffers: the number of accesses to pages of 8 kB.
        planning_ms, execution_ms: as measured by the server, which slows down the execution.
    """

    question: str
    statements: int
    reads: tuple[str, ...]
    partitions: int
    buffers: int
    planning_ms: float
    execution_ms: float


def plan_of(question: Question, pool: StoragePool, given: Arguments) -> Plan:
    """Execute the query once, and explain each statement that it sends."""
    with _noted(pool.engine) as statements, pool.unit_of_work() as uow:
        question.ask(uow, given)
    reads: Counter[str] = Counter()
    partitions: set[str] = set()
    buffers, planning, execution = 0, 0.0, 0.0
    with pool.engine.connect() as connection:
        names = _index_names(connection)
        for statement, parameters in statements:
            (explained,) = connection.exec_driver_sql(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters
            ).scalar_one()
            top = explained["Plan"]
            buffers += top["Shared Hit Blocks"] + top["Shared Read Blocks"]
            planning += explained["Planning Time"]
            execution += explained["Execution Time"]
            for node in _executed(top):
                if "Index Name" in node:
                    index = node["Index Name"]
                    reads[names.get(index) or _DIGEST.sub("", _SUFFIX.sub("", index))] += 1
                elif node["Node Type"] == "Seq Scan":
                    reads[f"all of {_SUFFIX.sub('', node['Relation Name'])}"] += 1
                if is_partition(node.get("Relation Name", "")):
                    partitions.add(node["Relation Name"])
    return Plan(
        question=question.name,
        statements=len(statements),
        reads=tuple(sorted(reads)),
        partitions=len(partitions),
        buffers=buffers,
        planning_ms=planning,
        execution_ms=execution,
    )


def _executed(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The nodes that were executed. Partitions can also be pruned during the execution."""
    if node["Actual Loops"]:
        yield node
    for below in node.get("Plans", ()):
        yield from _executed(below)


@contextmanager
def _noted(engine: sa.Engine) -> Iterator[list[tuple[str, Any]]]:
    seen: list[tuple[str, Any]] = []

    def note(_c: Any, _k: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        seen.append((statement, parameters))

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


def _index_names(connection: sa.Connection) -> dict[str, str]:
    """Maps the index of a partition to the index of its table."""
    pairs = connection.exec_driver_sql(
        "SELECT part.relname AS part, whole.relname AS whole FROM pg_inherits i"
        " JOIN pg_class part ON part.oid = i.inhrelid AND part.relkind = 'i'"
        " JOIN pg_class whole ON whole.oid = i.inhparent"
    )
    return {one.part: one.whole for one in pairs}
