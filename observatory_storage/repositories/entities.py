"""Rows made into entities that are detached from the start.

A session's own loader remembers what it has loaded, and answers by that again; but rows are also
written past the session (COPY). To have it remember and then forget is much of what a short page
costs: so rows are read past the session too, and put into instances as its loader does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Generic, TypeVar, cast

from sqlalchemy import Select, inspect
from sqlalchemy.orm import InstanceState, LoaderCallableStatus, Mapper, PassiveFlag
from sqlalchemy.orm.attributes import instance_state

from observatory_storage.errors import StorageError

__all__ = ["Maker"]

T = TypeVar("T")


class _NotLoaded:
    """What a detached entity answers for a column that its list has left out.

    SQLAlchemy's own answer speaks of a session, and no session would help.
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


class Maker(Generic[T]):
    """Makes the entities of a result.

    Args:
        statement: what was executed, on a connection: it begins with an entity.
        names: of the result's columns; those of the entity are its attributes' names.
    """

    def __init__(self, statement: Select[*tuple[Any, ...]], names: Iterable[str]) -> None:
        entity = statement.column_descriptions[0]["entity"]
        mapper: Mapper[Any] = inspect(entity).mapper
        self._new = mapper.class_manager.new_instance
        self._identity = mapper.identity_key_from_primary_key
        columns = _columns(mapper)
        self._names = [name for name in names if name in columns]
        self._key = [self._names.index(name) for name in _primary_key(mapper)]
        self._left_out = {name: _NotLoaded(name) for name in columns if name not in self._names}

    def __call__(self, rows: Iterable[Any]) -> Iterator[T]:
        names, key, left_out = self._names, self._key, self._left_out
        for row in rows:
            entity = self._new()
            entity.__dict__.update(zip(names, row, strict=False))  # there may be more in the row
            state = instance_state(entity)
            state.key = self._identity(tuple([row[at] for at in key]))
            if left_out:
                state.callables = dict(left_out)
            yield cast(T, entity)


@cache
def _columns(mapper: Mapper[Any]) -> tuple[str, ...]:
    return tuple(attribute.key for attribute in mapper.column_attrs)


@cache
def _primary_key(mapper: Mapper[Any]) -> tuple[str, ...]:
    return tuple(mapper.get_property_by_column(column).key for column in mapper.primary_key)
