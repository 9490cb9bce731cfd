"""The access to the session: every statement of a repository goes through a `Reader`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import (
    Connection,
    CursorResult,
    Delete,
    Select,
    Update,
    func,
    literal,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import Insert
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.sql import ClauseElement, Executable
from sqlalchemy.sql.compiler import SQLCompiler

from observatory_storage.distribution import is_sharded, planned_rows
from observatory_storage.errors import NotFound, StorageError, translated
from observatory_storage.operations import Hooks
from observatory_storage.payloads import fill_whole, log_damage
from observatory_storage.read_only_guard import READ_ONLY, ReadOnlyGuard
from observatory_storage.repositories.reading.compact_rows import CompactRows, sharing
from observatory_storage.repositories.reading.entities import UNIT_IS_OPEN, EntityMaker, mapper_of
from observatory_storage.repositories.reading.pages import Keyset, Seek, Total
from observatory_storage.repositories.reading.streams import batches
from observatory_storage.repositories.reading.validation import BATCH_SIZE
from observatory_storage.tables import TABLES

__all__ = ["HOOKS", "Parameters", "Reader", "StatementSearch", "check_open", "fenced"]

_log = logging.getLogger(__name__)
# The key in `Session.info` of the hooks of the pool.
HOOKS: Final = "observatory_storage.hooks"
T = TypeVar("T")
U = TypeVar("U")
Parameters = Mapping[str, Any] | None


def check_open(session: Session) -> None:
    """Check that the unit of work of the session, if there is one, has not ended.

    Raises:
        StorageError: the unit of work has ended.
    """
    if session.info.get(UNIT_IS_OPEN) is False:
        raise StorageError(
            "the unit of work has ended: use it within its block, or open another one"
            " (with pool.unit_of_work() as uow)"
        )


class _Explained(Executable, ClauseElement):
    """The plan of a statement. The statement itself is not run."""

    inherit_cache = False

    def __init__(self, statement: Select[Any]) -> None:
        self.statement = statement


@compiles(_Explained)
def _compile_explained(element: _Explained, compiler: SQLCompiler, **kw: Any) -> str:
    # EXPLAIN takes bind parameters, so the planner knows their values.
    return f"EXPLAIN (FORMAT JSON) {compiler.process(element.statement, **kw)}"


def fenced(statement: Any, *, is_sharded: bool) -> Any:
    """The statement as one that is planned by itself when it is a part of another one.

    The quoted number is a constant to the planner. An integer would have to be converted first, and
    would rule out parallel plans. Citus would send all rows of such a part to the coordinator.
    """
    return statement if is_sharded else statement.offset(literal_column("'0'"))


class Reader:
    """Runs the statements of the repositories, in the transaction of the session's owner.

    Entities are detached. They have the values that the database has now, whatever the session
    holds, and stay usable after the session has ended.

    Attributes:
        hooks: the hooks of the pool that the session belongs to; None if it belongs to no pool.
        guard: calls the methods of the repository; None if the unit of work may write.
        is_measured: whether a method of the repository runs that is reported to the hooks.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.hooks: Hooks | None = session.info.get(HOOKS)
        self.guard: ReadOnlyGuard | None = session.info.get(READ_ONLY)
        self.is_measured = False

    @property
    def session(self) -> Session:
        """The session.

        Raises:
            StorageError: its unit of work has ended.
        """
        check_open(self._session)
        return self._session

    @property
    def is_sharded(self) -> bool:
        """Whether the tables have shards on several servers, which some statements depend on."""
        return is_sharded(self.session.get_bind())

    def entities(self, statement: Select[T], parameters: Parameters = None) -> list[T]:
        """The entities that the statement selects."""
        with translated():
            result, make = self._entity_result(statement, parameters)
            return _whole(make, result, result.all())

    def entities_with(
        self, statement: Select[T, U], parameters: Parameters = None
    ) -> list[tuple[T, U]]:
        """The entities, each with the value that the statement selects beside it."""
        with translated():
            result, make = self._entity_result(statement, parameters)
            rows = result.all()
            entities = _whole(make, result, rows)
            return [(entity, row[-1]) for entity, row in zip(entities, rows, strict=True)]

    def entity(self, statement: Select[T], parameters: Parameters, what: str) -> T:
        """The first entity that the statement selects.

        Raises:
            NotFound: there is no such row. The message names it by `what`.
        """
        found = self.entities(statement, parameters)
        if not found:
            raise NotFound(f"there is no {what}")
        return found[0]

    def entity_batches(
        self, statement: Select[T], batch_size: int, parameters: Parameters = None
    ) -> Iterator[Sequence[T]]:
        """The entities through a server-side cursor, one batch at a time in memory."""
        with translated():
            result, make = self._entity_result(statement, parameters, yield_per=batch_size)
            for rows in batches(self.session, result):
                yield _whole(make, result, rows)

    def beside_entities(
        self, statement: Select[T, *tuple[Any, ...]], parameters: Parameters = None
    ) -> tuple[list[T], Sequence[Any]]:
        """The entities of an outer join, and all rows, also those without an entity."""
        with translated():
            result, make = self._entity_result(statement, parameters)
            rows = result.all()
            return _whole(make, result, [row for row in rows if row[0] is not None]), rows

    def connection(self) -> Connection:
        """The connection of the session."""
        with translated():
            return self.session.connection()

    def compact_rows(
        self, statement: Select[T], batch_size: int, parameters: Parameters = None
    ) -> CompactRows[T]:
        """The rows of a large result, through a server-side cursor, without their entities."""
        with translated():
            result, make = self._entity_result(statement, parameters, yield_per=batch_size)
            names = tuple(result.keys())
            share = sharing(make.mapper, names)
            rows = [share(row) for batch in batches(self.session, result) for row in batch]
            return CompactRows(names, rows, make.one)

    def rows(self, statement: Executable, parameters: Parameters = None) -> Sequence[Any]:
        """All rows of the statement."""
        with translated():
            return self._execute(None, statement, parameters).all()

    def records(self, statement: Executable, parameters: Parameters = None) -> list[dict[str, Any]]:
        """All rows of the statement, their values by label."""
        with translated():
            result = self._execute(None, statement, parameters)
            labels = tuple(result.keys())
            return [dict(zip(labels, row, strict=True)) for row in result]

    def row(self, statement: Executable, parameters: Parameters = None) -> Any:
        """The one row of the statement."""
        with translated():
            return self._execute(None, statement, parameters).one()

    def scalar(self, statement: Executable, parameters: Parameters = None) -> Any:
        """The first value of the first row; None without rows."""
        with translated():
            return self._execute(None, statement, parameters).scalar()

    def stream(self, statement: Select[*tuple[Any, ...]]) -> Iterator[Any]:
        """The rows through a server-side cursor, one batch at a time in memory."""
        options = {"yield_per": BATCH_SIZE}
        with translated():
            result = self._execute(mapper_of(statement), statement, None, options)
            for rows in batches(self.session, result):
                yield from rows

    def count(self, statement: Select[Any], kind: Total, parameters: Parameters = None) -> int:
        """The number of rows of the statement, counted or estimated by the planner."""
        if kind == "exact":
            counted = select(func.count()).select_from(statement.subquery())
            return int(self.scalar(counted, parameters))
        if not self.is_sharded:
            return planned_rows(self.scalar(_Explained(statement), parameters))
        with translated(), self.session.connection().begin_nested() as savepoint:
            self.run(text("SET LOCAL citus.explain_all_tasks TO on"))
            planned = planned_rows(self.scalar(_Explained(statement), parameters))
            # Unless an EXPLAIN is undone, Citus does not read metrics in the same transaction.
            savepoint.rollback()
        return planned

    def run(self, statement: Executable) -> None:
        """Run a statement without a result."""
        with translated():
            self._execute(None, statement, None)

    def change(self, statement: Delete | Insert | Update) -> int:
        """Run a statement, and return the number of rows that it changed."""
        changed = statement.returning(literal(1).label("one")).cte("changed")
        return int(self.scalar(select(func.count()).select_from(changed)))

    def _entity_result(
        self, statement: Any, parameters: Parameters, **options: Any
    ) -> tuple[CursorResult[Any], EntityMaker[Any]]:
        mapper = mapper_of(statement)
        if mapper is None:
            raise TypeError("the statement does not begin with an entity")
        result = self._execute(mapper, statement, parameters, options)
        return result, EntityMaker(mapper, result.keys(), self.session)

    def _execute(
        self,
        mapper: Mapper[Any] | None,
        statement: Executable,
        parameters: Parameters,
        options: Mapping[str, Any] | None = None,
    ) -> CursorResult[Any]:
        """Run a statement on the session's connection, without the session's layer for entities."""
        session = self.session
        if session.autoflush:
            session.flush()
        connection = session.connection({"mapper": mapper, "clause": statement})
        return connection.execute(statement, parameters, execution_options=options)


def _whole(make: EntityMaker[T], result: CursorResult[Any], rows: Sequence[Any]) -> list[T]:
    """The entities of these rows of a result, with whole attributes instead of previews.

    If any of them has values in a payload frame, that takes one more statement.
    """
    entities = list(make(rows))
    if make.has_payload:
        columns = list(map(vars, entities))
        damaged = fill_whole(result.connection, TABLES[make.table_name], columns)
        log_damage(damaged)
        left = [row for row in columns if row["payload_frame"] is not None]
        if len(left) > len(damaged):
            count = len(left) - len(damaged)
            _log.warning("%s rows were deleted while they were read: they have previews", count)
    return entities


@dataclass(frozen=True, slots=True)
class StatementSearch(Generic[T]):
    """A list that one statement finds: a `pages.Search`.

    Attributes:
        query: the values that tell this query's cursors from those of other queries on the same
            list.
        parameters: values of the statement's bind parameters.
    """

    reader: Reader
    keyset: Keyset
    statement: Select[T]
    query: Mapping[str, Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def rows(self, seek: Seek) -> Sequence[T]:
        return self.reader.entities(seek.of(self.statement), {**self.parameters, **seek.parameters})

    def count(self, kind: Total) -> int:
        return self.reader.count(self.statement, kind, self.parameters)
