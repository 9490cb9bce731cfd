"""Makes entities from rows. An entity is detached until one of its attributes is set.

SQLAlchemy's loader keeps loaded entities in the session's identity map and returns them again. But
COPY writes rows that the session does not know, and filling and clearing the identity map is much
of the cost of a short page. Therefore rows are read on the session's connection, and instances are
filled as the loader fills them. The events of loading (`InstanceEvents.load`, `do_orm_execute`) are
not sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from itertools import takewhile
from operator import itemgetter
from typing import Any, Final, Generic, NamedTuple, TypeVar, cast
from weakref import WeakKeyDictionary, ref

from sqlalchemy import Select, inspect
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import InstanceState, LoaderCallableStatus, Mapper, PassiveFlag, Session
from sqlalchemy.orm.attributes import instance_state

from observatory_storage.errors import StorageError
from observatory_storage.models.base import ORIGIN, Base
from observatory_storage.stored_json import StoredJson
from observatory_storage.tables import PAYLOAD_COLUMNS

__all__ = ["UNIT_IS_OPEN", "EntityMaker", "mapper_of"]

T = TypeVar("T")

# The key in `Session.info` of a unit of work's session: True also between its transactions, and
# False when the unit of work has ended.
UNIT_IS_OPEN: Final = "observatory_storage.unit_is_open"
_PAYLOAD: Final = frozenset({"attributes", *PAYLOAD_COLUMNS})
_STATE: Final = "_sa_instance_state"  # SQLAlchemy's own attribute of each instance
_LEFT_OUT: Final = "ask the list for it (payload=True), or read the row by itself"


class _NotLoaded:
    """The value of an attribute that was not loaded: reading it raises.

    SQLAlchemy's own error recommends a session or a loading strategy, but neither would help.
    """

    def __init__(self, attribute: str, remedy: str) -> None:
        self._attribute, self._remedy = attribute, remedy

    def __call__(self, state: InstanceState[Any], passive: PassiveFlag) -> Any:
        if not passive & PassiveFlag.SQL_OK:
            return LoaderCallableStatus.PASSIVE_NO_RESULT
        name = f"{state.class_.__name__}.{self._attribute}"
        raise StorageError(f"{name} was not loaded: {self._remedy}")


class _Origin:
    """The session that read some entities. Setting an attribute of an entity attaches it again."""

    def __init__(self, session: Session | None = None) -> None:
        self._session = None if session is None else ref(session)

    def attach(self, entity: Base) -> None:
        session = None if self._session is None else self._session()
        # If the session has ended, attributes can still be set, but nothing writes them.
        if session is None or not (session.in_transaction() or session.info.get(UNIT_IS_OPEN)):
            return
        key = instance_state(entity).key
        held = None if key is None else session.identity_map.get(key)
        # The session holds an earlier entity of the same row, which has no changes to write.
        if held and ORIGIN in instance_state(held).info and not session.is_modified(held):
            session.expunge(held)
        try:
            session.add(entity)
        except InvalidRequestError as error:
            raise StorageError(
                f"{entity!r} cannot be changed: the session holds the same row as another object;"
                " change that one"
            ) from error

    def __reduce__(self) -> tuple[type[_Origin], tuple[()]]:
        # A pickled entity leaves its session behind.
        return _Origin, ()


class EntityMaker(Generic[T]):
    """Makes entities from the rows of a result.

    Args:
        mapper: of the entity.
        names: the names of the result's columns. The entity's columns come first, named as its
            attributes.
        session: the session in which the result was read, if it was.
        remedy: how to get the columns that are not loaded.

    Attributes:
        mapper: as given.
        table_name: the name of its table.
        has_payload: whether the entities have attributes whose values may stand in payload frames.
    """

    def __init__(
        self,
        mapper: Mapper[T],
        names: Iterable[str],
        session: Session | None = None,
        remedy: str = _LEFT_OUT,
    ) -> None:
        self.mapper = mapper
        self.table_name = str(mapper.local_table)
        self._origin = _Origin(session)
        self._new = mapper.class_manager.new_instance
        self._kind, _, self._token = mapper.identity_key_from_primary_key(())
        self._shape = _shape(mapper, tuple(names), remedy)
        self.has_payload = _PAYLOAD.issubset(self._shape.names)

    def __call__(self, rows: Iterable[Any]) -> Iterator[T]:
        names, key_of, not_loaded = self._shape
        kind, token = self._kind, self._token
        info = {ORIGIN: self._origin}
        for row in rows:
            entity = self._new()
            entity.__dict__.update(zip(names, row, strict=False))  # the row may have more columns
            state = instance_state(entity)
            state.key = (kind, key_of(row), token)
            state.callables = not_loaded.copy()
            state.info = info  # type: ignore[misc]  # SQLAlchemy would make a dict for each
            yield entity

    def sharing(
        self,
        common: Mapping[str, Any],
        names: Sequence[str],
        rows: Iterable[Any],
        encoded: Sequence[str] = (),
    ) -> Iterator[T]:
        """The entities of rows that have the same values in most columns.

        Args:
            common: the columns whose values all rows share. They are put in at once.
            names: the other columns.
            rows: their values.
            encoded: those of `names` whose values are the contents of `StoredJson`.
        """
        loaded, _, not_loaded = self._shape
        template: dict[str, Any] = dict.fromkeys(loaded) | dict(common)
        kind, token = self._kind, self._token
        info = {ORIGIN: self._origin}
        manager, class_ = self.mapper.class_manager, self.mapper.class_
        new = class_.__new__
        key_of = itemgetter(*_primary_key(self.mapper))
        is_single = len(_primary_key(self.mapper)) == 1
        for row in rows:
            entity = new(class_)
            state: InstanceState[Any] = InstanceState(entity, manager)
            columns = template.copy()  # takes a tenth of the time of an update
            columns.update(zip(names, row, strict=True))
            for name in encoded:
                if columns[name] is not None:
                    columns[name] = StoredJson(columns[name])
            columns[_STATE] = state
            entity.__dict__ = columns
            key = key_of(columns)
            state.key = (kind, (key,) if is_single else key, token)
            state.callables = not_loaded.copy()
            state.info = info  # type: ignore[misc]  # as above
            yield entity

    def one(self, row: Any) -> T:
        """The entity of a row."""
        return next(self((row,)))


def mapper_of(statement: Select[*tuple[Any, ...]]) -> Mapper[Any] | None:
    """The mapper of the first thing that a statement selects; None if it is not an entity."""
    if statement not in _mappers:
        entity = statement.column_descriptions[0].get("entity")
        mapper = None if entity is None else cast(Mapper[Any], inspect(entity).mapper)
        _mappers[statement] = mapper
    return _mappers[statement]


# Describing the columns of a statement takes as long as making the entities of a short page.
_mappers: Final[WeakKeyDictionary[Select[*tuple[Any, ...]], Mapper[Any] | None]] = (
    WeakKeyDictionary()
)


class _Shape(NamedTuple):
    """What the entities of results with the same columns share.

    Attributes:
        names: the attributes that are loaded.
        key_of: the primary key of a row.
        not_loaded: what raises when one of the other attributes is read.
    """

    names: Sequence[str]
    key_of: Callable[[Any], tuple[Any, ...]]
    not_loaded: dict[str, Any]


@lru_cache
def _shape(mapper: Mapper[Any], names: Sequence[str], remedy: str) -> _Shape:
    columns = [attribute.key for attribute in mapper.column_attrs]
    loaded = list(takewhile(columns.__contains__, names))
    places = [loaded.index(name) for name in _primary_key(mapper)]
    # A slice of one gives a tuple as well, which a single index does not.
    single = slice(places[0], places[0] + 1)
    key_of = itemgetter(*places) if len(places) > 1 else itemgetter(single)
    left_out = {name: _NotLoaded(name, remedy) for name in columns if name not in loaded}
    return _Shape(loaded, key_of, _relationships(mapper) | left_out)


@cache
def _primary_key(mapper: Mapper[Any]) -> tuple[str, ...]:
    return tuple(mapper.get_property_by_column(column).key for column in mapper.primary_key)


@cache
def _relationships(mapper: Mapper[Any]) -> dict[str, _NotLoaded]:
    return {
        relationship.key: _NotLoaded(relationship.key, f"call {relationship.info['call']}")
        for relationship in mapper.relationships
    }
