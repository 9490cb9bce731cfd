"""The splits under way: what is stored of each, its new tables, and whether it can go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final, NamedTuple, cast

import sqlalchemy as sa

from observatory_storage import layout
from observatory_storage.errors import StorageError
from observatory_storage.lifecycle.split_plan import Split
from observatory_storage.models import PartitionSplit
from observatory_storage.partition_catalog import bounds_of, create_like, free_name
from observatory_storage.storing.transaction import Source
from observatory_storage.time_ranges import MAX, MIN, Range

__all__ = ["CHECK_NAME", "NewTable", "SplitState", "begin", "discard", "is_valid", "save", "stored"]

# Proves that a new table holds only rows of its range, so that attaching it reads none of them.
CHECK_NAME: Final = "split_range"
# Transaction ids are compared over half of their circle.
_OLDEST_XID: Final = 2**31 - 2**28
_SPLITS: Final = cast(sa.Table, PartitionSplit.__table__)


class NewTable(NamedTuple):
    """A table that will be a partition."""

    name: str
    oid: int
    held: Range


@dataclass(frozen=True, slots=True)
class SplitState:
    """A split under way. The attributes are those of `PartitionSplit`."""

    table_name: str
    partition_name: str
    relation_oid: int
    file_node: int
    definition: str
    new_tables: tuple[NewTable, ...]
    block_count: int
    next_block: int
    changed_since: str
    is_replaced: bool = False

    @property
    def is_copied(self) -> bool:
        """Whether all rows have been copied, but for changes."""
        return self.next_block >= self.block_count


def stored(source: Source) -> list[SplitState]:
    """The splits that earlier runs have begun."""
    with source.engine.begin() as connection:
        rows = connection.execute(sa.select(_SPLITS).order_by(_SPLITS.c.partition_name)).mappings()
        return [_state(row) for row in rows]


def begin(source: Source, split: Split) -> SplitState | None:
    """Create the new tables, and note that the split has begun; None if it cannot begin."""
    schema = source.schema
    with source.engine.begin() as connection:
        layout.lock(connection, "partitions", schema)
        facts = _facts(connection, schema, split.table, split.partition)
        if facts is None:
            return None
        if not facts.is_owned:
            role = connection.scalar(sa.text("SELECT current_user"))
            raise StorageError(
                f"{role} does not own {split.partition} and its table: only the owner can split it"
            )
        quote = connection.dialect.identifier_preparer.quote
        column = quote(layout.PARTITIONED[split.table])
        new_tables = []
        for held in split.ranges:
            name = free_name(connection, schema, split.table, held.suffix)
            create_like(connection, schema, split.table, name)
            lower, upper = bounds_of(held)
            conditions = [f"{column} >= {lower}"] * (lower is not None)
            conditions += [f"{column} < {upper}"] * (upper is not None)
            child = f"{quote(schema)}.{quote(name)}"
            connection.exec_driver_sql(
                f"ALTER TABLE {child} ADD CONSTRAINT {CHECK_NAME}"
                f" CHECK ({' AND '.join(conditions)})"
            )
            new_tables.append(NewTable(name, _oid(connection, schema, name), held))
        state = SplitState(
            split.table,
            split.partition,
            facts.oid,
            facts.file_node,
            facts.definition,
            tuple(new_tables),
            block_count=facts.blocks,
            next_block=0,
            changed_since=facts.snapshot_xmin,
        )
        connection.execute(sa.insert(_SPLITS).values(_row(state)))
    return state


def save(connection: sa.Connection, state: SplitState) -> None:
    """Store how far the split is, in the transaction that has brought it there."""
    connection.execute(
        sa.update(_SPLITS)
        .where(_SPLITS.c.partition_name == state.partition_name)
        .values(
            next_block=state.next_block,
            changed_since=state.changed_since,
            is_replaced=state.is_replaced,
        )
    )


def is_valid(connection: sa.Connection, source: Source, state: SplitState) -> bool:
    """Whether what has been copied still fits the partition and the table's definition."""
    facts = _facts(connection, source.schema, state.table_name, state.partition_name)
    if facts is None:
        return False
    age = int(facts.snapshot_xmin) - int(state.changed_since)
    return (
        (facts.oid, facts.file_node, facts.definition)
        == (state.relation_oid, state.file_node, state.definition)
        and 0 <= age < _OLDEST_XID
        and _have_new_tables(connection, source.schema, state)
    )


def _have_new_tables(connection: sa.Connection, schema: str, state: SplitState) -> bool:
    query = sa.text(
        "SELECT c.relname, c.oid::bigint FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = :schema AND c.relname = ANY (:names) AND NOT c.relispartition"
    )
    wanted = {one.name: one.oid for one in state.new_tables}
    rows = connection.execute(query, {"schema": schema, "names": list(wanted)})
    return {name: oid for name, oid in rows} == wanted  # noqa: C416 - rows are no pairs to mypy


def discard(source: Source, state: SplitState) -> None:
    """Drop what is left of a split: the partition if it was replaced, else the new tables."""
    left = [(one.name, one.oid) for one in state.new_tables]
    if state.is_replaced:
        left = [(state.partition_name, state.relation_oid)]
    with source.engine.begin() as connection:
        layout.lock(connection, "partitions", source.schema)
        quote = connection.dialect.identifier_preparer.quote
        for name, oid in left:
            # A partition of this name may have been made since.
            if _oid(connection, source.schema, name, of_partitions=False) == oid:
                connection.exec_driver_sql(f"DROP TABLE {quote(source.schema)}.{quote(name)}")
        connection.execute(
            sa.delete(_SPLITS).where(_SPLITS.c.partition_name == state.partition_name)
        )


class _Facts(NamedTuple):
    oid: int
    file_node: int
    blocks: int
    snapshot_xmin: str
    definition: str
    is_owned: bool


def _facts(connection: sa.Connection, schema: str, table: str, partition: str) -> _Facts | None:
    """What the catalog says of the partition; None if it is none of the table's."""
    names = {"schema": schema, "table": table, "partition": partition}
    # Before the size is read: rows on pages that come later have younger transaction ids.
    snapshot = connection.scalar(sa.text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text"))
    row = connection.execute(_PARTITION, names).one_or_none()
    if row is None:
        return None
    parts = connection.scalars(_DEFINITION, names).all()
    digest = blake2b("\n".join(sorted(parts)).encode(), digest_size=16).hexdigest()
    return _Facts(row.oid, row.file_node, row.blocks, str(snapshot), digest, row.is_owned)


def _oid(connection: sa.Connection, schema: str, name: str, *, of_partitions: bool = True) -> int:
    """The OID of a table; 0 if there is none, or if it is a partition and these do not count."""
    query = sa.text(
        "SELECT c.oid::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = :schema AND c.relname = :name AND (:any OR NOT c.relispartition)"
    )
    found = connection.scalar(query, {"schema": schema, "name": name, "any": of_partitions})
    return 0 if found is None else int(found)


def _row(state: SplitState) -> dict[str, Any]:
    new_tables = [
        {
            "name": one.name,
            "oid": one.oid,
            "lower": None if one.held.lower == MIN else one.held.lower.isoformat(),
            "upper": None if one.held.upper == MAX else one.held.upper.isoformat(),
        }
        for one in state.new_tables
    ]
    return {
        "table_name": state.table_name,
        "partition_name": state.partition_name,
        "relation_oid": state.relation_oid,
        "file_node": state.file_node,
        "definition": state.definition,
        "new_tables": new_tables,
        "block_count": state.block_count,
        "next_block": state.next_block,
        "changed_since": state.changed_since,
    }


def _state(row: Any) -> SplitState:
    values = dict(row)
    new_tables: Sequence[dict[str, Any]] = values.pop("new_tables")
    return SplitState(
        new_tables=tuple(
            NewTable(
                one["name"],
                one["oid"],
                Range(_moment(one["lower"], MIN), _moment(one["upper"], MAX)),
            )
            for one in new_tables
        ),
        **values,
    )


def _moment(text: str | None, end: datetime) -> datetime:
    return end if text is None else datetime.fromisoformat(text)


_PARTITION: Final = sa.text(
    "SELECT c.oid::bigint AS oid, pg_relation_filenode(c.oid)::bigint AS file_node,"
    " pg_relation_size(c.oid) / current_setting('block_size')::bigint AS blocks,"
    " pg_has_role(c.relowner, 'USAGE') AND pg_has_role(p.relowner, 'USAGE') AS is_owned"
    " FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
    " JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace n ON n.oid = p.relnamespace"
    " WHERE n.nspname = :schema AND p.relname = :table AND c.relname = :partition"
    " AND NOT i.inhdetachpending"
)
_DEFINITION: Final = sa.text(
    "WITH t AS (SELECT p.oid FROM pg_class p JOIN pg_namespace n ON n.oid = p.relnamespace"
    " WHERE n.nspname = :schema AND p.relname = :table)"
    " SELECT concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,"
    " pg_get_expr(d.adbin, d.adrelid)) FROM t JOIN pg_attribute a ON a.attrelid = t.oid"
    " LEFT JOIN pg_attrdef d ON d.adrelid = t.oid AND d.adnum = a.attnum"
    " WHERE a.attnum > 0 AND NOT a.attisdropped"
    " UNION ALL SELECT pg_get_indexdef(x.indexrelid) FROM t JOIN pg_index x ON x.indrelid = t.oid"
    " UNION ALL SELECT pg_get_constraintdef(k.oid) FROM t"
    " JOIN pg_constraint k ON k.conrelid = t.oid"
)
