"""Makes entities of rows, detached from the start.

A session's own loader keeps what it has loaded, and answers from that again. But COPY writes rows
without the session, and filling its identity map only to empty it is much of the cost of a short
page. So rows are read on the session's connection and put into instances as its loader does. The
events of loading (`InstanceEvents.load`, `do_orm_execute`) are not sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import takewhile
from typing import Any, Generic, TypeVar, cast

from sqlalchemy import Select, inspect
from sqlalchemy.orm import InstanceState, LoaderCallableStatus, Mapper, PassiveFlag
from sqlalchemy.orm.attributes import instance_state

from observatory_storage.errors import StorageError

__all__ = ["EntityMaker", "entity_of", "mapper_of"]

T = TypeVar("T")


class _NotLoaded:
    """The value of a column that a list has left out: reading it raises.

    SQLAlchemy's own error advises a session, which would not help.
    """

    def __init__(self, column: str) -> None:
        self._column = column

    def __call__(self, state: InstanceState[Any], passive: PassiveFlag) -> Any:
        if not passive & PassiveFlag.SQL_OK:
            return LoaderCallableStatus.PASSIVE_NO_RESULT
        name = f"{state.class_.__name__}.{self._column}"
        raise StorageError(
            f"{name} was not loaded: ask the list for it (payload=True), or read the row by itself"
        )


class EntityMaker(Generic[T]):
    """Makes the entities of a result.

    Args:
        mapper: of the entity.
        names: of the result's columns. The entity's come first, and are its attributes' names.
    """

    def __init__(self, mapper: Mapper[T], names: Iterable[str]) -> None:
        self._new = mapper.class_manager.new_instance
        self._identity = mapper.identity_key_from_primary_key
        columns = _columns(mapper)
        self._names = list(takewhile(columns.__contains__, names))
        self._key = [self._names.index(name) for name in _primary_key(mapper)]
        self._left_out = {name: _NotLoaded(name) for name in columns if name not in self._names}

    def __call__(self, rows: Iterable[Any]) -> Iterator[T]:
        names, key, left_out = self._names, self._key, self._left_out
        for row in rows:
            entity = self._new()
            entity.__dict__.update(zip(names, row, strict=False))  # the row may have more columns
            state = instance_state(entity)
            state.key = self._identity(tuple([row[index] for index in key]))
            if left_out:
                state.callables = dict(left_out)
            yield entity


def entity_of(statement: Select[*tuple[Any, ...]]) -> Mapper[Any]:
    """The mapper of the entity that a statement begins with."""
    mapper = mapper_of(statement)
    if mapper is None:
        raise TypeError("the statement does not begin with an entity")
    return mapper


def mapper_of(statement: Select[*tuple[Any, ...]]) -> Mapper[Any] | None:
    """The mapper of what a statement selects first; None if that is mapped by none."""
    entity = statement.column_descriptions[0].get("entity")
    return None if entity is None else cast(Mapper[Any], inspect(entity).mapper)


@cache
def _columns(mapper: Mapper[Any]) -> tuple[str, ...]:
    return tuple(attribute.key for attribute in mapper.column_attrs)


@cache
def _primary_key(mapper: Mapper[Any]) -> tuple[str, ...]:
    return tuple(mapper.get_property_by_column(column).key for column in mapper.primary_key)
