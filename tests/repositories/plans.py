"""The plans of the statements that a repository sends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_storage import StoragePool, UnitOfWork
from observatory_storage.repositories.logs import attribute_search
from observatory_storage.repositories.traces import span_search, walk_or_index

# After so many runs psycopg and PostgreSQL would take a generic plan, if statements were prepared.
RUNS = 12
OF_FRAMES = {"payload_segments", "payload_unindexed"}
"""The tables by which a search of log records looks whether there are words in frames."""


@dataclass(frozen=True)
class Scan:
    """A table or an index that a plan reads.

    Attributes:
        index: the index, or the table's index that the partition's belongs to; None without one.
        relation: the table or partition; None where only the index is read.
        rows: read and left out ones together.
    """

    kind: str
    index: str | None
    relation: str | None
    is_run: bool
    rows: float


@dataclass(frozen=True)
class Plan:
    """What running one statement reads."""

    statement: str
    scans: tuple[Scan, ...]
    blocks: int
    text: str

    @property
    def run(self) -> list[Scan]:
        """The scans that took place: others were found needless on the way."""
        return [scan for scan in self.scans if scan.is_run]

    @property
    def indexes(self) -> set[str]:
        return {scan.index for scan in self.run if scan.index is not None}

    @property
    def rows(self) -> float:
        return sum(scan.rows for scan in self.run)

    def relations(self, table: str) -> set[str]:
        """The table or those of its partitions that were read."""
        names = {scan.relation for scan in self.run if scan.relation is not None}
        return {name for name in names if name == table or name.startswith(f"{table}_p")}

    @property
    def read_whole(self) -> set[str]:
        """The tables and partitions that were read from end to end."""
        return {scan.relation or "" for scan in self.run if scan.kind == "Seq Scan"}


def plans_of(pool: StoragePool, ask: Callable[[UnitOfWork], Any]) -> list[Plan]:
    """The plans of the statements that one question sends, after a dozen times the same.

    They are planned for the same parameters, and run.
    """
    with pool.unit_of_work() as uow:
        for _ in range(RUNS):
            ask(uow)
        sent: list[tuple[str, Any]] = []

        def note(_c: Any, _k: Any, statement: str, parameters: Any, *_rest: Any) -> None:
            sent.append((statement, parameters))

        sa.event.listen(pool.engine, "before_cursor_execute", note)
        try:
            ask(uow)
        finally:
            sa.event.remove(pool.engine, "before_cursor_execute", note)
        connection = uow.session.connection()
        prepared = connection.scalar(sa.text("SELECT count(*) FROM pg_prepared_statements"))
        assert not prepared, "a prepared statement may get a generic plan, which no test here sees"
        parents = _parents_of_indexes(connection)
        return [
            _plan(connection, statement, parameters, parents)
            for statement, parameters in sent
            if statement.lstrip().upper().startswith(("SELECT", "WITH"))
        ]


def _parents_of_indexes(connection: sa.Connection) -> dict[str, str]:
    rows = connection.execute(
        sa.text(
            "SELECT c.relname, p.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
            " JOIN pg_class p ON p.oid = i.inhparent WHERE c.relkind = 'i'"
        )
    )
    return {child: parent for child, parent in rows}  # noqa: C416 - rows are no pairs to mypy


def _plan(
    connection: sa.Connection, statement: str, parameters: Any, parents: dict[str, str]
) -> Plan:
    options = "ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF"
    ((document,),) = connection.exec_driver_sql(
        f"EXPLAIN ({options}, FORMAT JSON) {statement}", parameters
    )
    root = document[0]["Plan"]
    blocks = root["Shared Hit Blocks"] + root["Shared Read Blocks"]
    lines = connection.exec_driver_sql(f"EXPLAIN ({options}) {statement}", parameters).scalars()
    return Plan(statement, tuple(_scans(root, parents)), blocks, "\n".join([statement, *lines]))


def _scans(node: dict[str, Any], parents: dict[str, str]) -> Iterator[Scan]:
    index, relation = node.get("Index Name"), node.get("Relation Name")
    if index is not None or relation is not None:
        loops = node["Actual Loops"]
        left_out = node.get("Rows Removed by Filter", 0)
        yield Scan(
            node["Node Type"],
            None if index is None else parents.get(index, index),
            relation,
            is_run=loops > 0,
            rows=loops * (node["Actual Rows"] + left_out),
        )
    for child in node.get("Plans", ()):
        yield from _scans(child, parents)


def walk_first(patch: pytest.MonkeyPatch, rows: int) -> None:
    """Have searches of what stands in JSON walk so many rows before they look anything up."""
    patch.setattr(attribute_search, "_WALKED", rows)
    for name in ("_WALKED", "_WALKED_FOR_WORDS"):
        patch.setattr(span_search, name, rows)
        patch.setattr(walk_or_index, name, (rows // 3, rows))
