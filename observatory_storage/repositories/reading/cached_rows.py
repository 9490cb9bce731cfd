"""The rows of entities as they are cached: MessagePack of the values of their columns.

Most columns of the spans of a trace have one value in all of them. Such values are written once,
and put into entities all at once. JSON stays encoded until somebody asks for it.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from functools import cache, lru_cache
from types import NoneType
from typing import Any, Final, NamedTuple, TypeVar

from msgspec import MsgspecError, Raw, Struct
from msgspec.msgpack import Decoder, Encoder
from sqlalchemy import inspect
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapper, Session

from observatory_storage.cache import DamagedValue
from observatory_storage.models import Base
from observatory_storage.repositories.reading.entities import EntityMaker
from observatory_storage.stored_json import StoredJson

__all__ = ["PackedRows", "RowCodec", "Written", "codec_of", "decoded", "encode"]

T = TypeVar("T")
_encoder: Final = Encoder()
# Values of other types may be equal without being the same, such as 1.0 and 1.00.
_COMPARABLE: Final = frozenset({bool, bytes, datetime, int, NoneType, str, uuid.UUID})


def encode(value: Any) -> bytes | None:
    """The value in MessagePack; None if that cannot hold it, as an integer beyond 64 bits."""
    try:
        return _encoder.encode(value)
    except (MsgspecError, OverflowError, TypeError):
        return None


def decoded(decoder: Decoder[T], content: Any) -> T:
    """The value of MessagePack.

    Raises:
        DamagedValue: it is something else.
    """
    try:
        return decoder.decode(content)
    # ValueError: a time that Python does not know.
    except (MsgspecError, ValueError) as error:
        raise DamagedValue(str(error)) from error


class Written(Struct, array_like=True):
    """Rows as they are written.

    Attributes:
        places: the places of the columns that have one value in all rows.
        common: these values.
        rows: the values of the other columns.
    """

    places: tuple[int, ...]
    common: Raw
    rows: Raw


class PackedRows(NamedTuple):
    """Rows from which entities are made.

    Attributes:
        common: the values of columns that have one value in all rows.
        names: the other columns.
        rows: their values.
        json: those of the other columns whose values are the contents of `StoredJson`.
    """

    common: dict[str, Any]
    names: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    json: Sequence[str]


class RowCodec(NamedTuple):
    """How the rows of a model are cached.

    Attributes:
        mapper: the mapper of the model.
        names: the columns.
        types: the types of their values, as they are written.
        json: the places of JSON columns.
    """

    mapper: Mapper[Any]
    names: tuple[str, ...]
    types: tuple[Any, ...]
    json: tuple[int, ...]

    def write(self, entities: Sequence[Base]) -> Written | None:
        """The rows of entities that nobody has changed since they were read.

        None if MessagePack cannot hold them.
        """
        try:
            columns = [self._column(place, entities) for place in range(len(self.names))]
        except OverflowError:
            return None
        places = tuple(place for place, values in enumerate(columns) if _is_common(values))
        common = encode(tuple(columns[place][0] for place in places))
        others = [values for place, values in enumerate(columns) if place not in places]
        rows = encode(list(zip(*others, strict=True)) if others else [()] * len(entities))
        if common is None or rows is None:
            return None
        return Written(places, Raw(common), Raw(rows))

    def read(self, written: Written) -> PackedRows:
        """The rows.

        Raises:
            DamagedValue: they are something else.
        """
        reading = _reading(self, written.places)
        values, rows = (
            decoded(reading.common, written.common),
            decoded(reading.rows, written.rows),
        )
        common = dict(zip(reading.common_names, values, strict=True))
        for name in reading.common_json:
            if common[name] is not None:
                common[name] = StoredJson(common[name])
        return PackedRows(common, reading.names, rows, reading.json)

    def entities(
        self, packed: PackedRows, session: Session, left_out: frozenset[str] = frozenset()
    ) -> list[Any]:
        """New entities, as a reader of the session makes them.

        Args:
            packed: the rows.
            session: the session that the entities belong to.
            left_out: columns that are not loaded.
        """
        common, names, rows, json = packed
        loaded = tuple(name for name in self.names if name not in left_out)
        if left_out:
            common = {name: value for name, value in common.items() if name not in left_out}
            kept = [place for place, name in enumerate(names) if name not in left_out]
            names = tuple(names[place] for place in kept)
            rows = [tuple([row[place] for place in kept]) for row in rows]
            json = [name for name in json if name not in left_out]
        return list(EntityMaker(self.mapper, loaded, session).sharing(common, names, rows, json))

    def _column(self, place: int, entities: Sequence[Base]) -> list[Any]:
        values = [vars(entity)[self.names[place]] for entity in entities]
        if place in self.json:
            return [None if value is None else StoredJson.of(value) for value in values]
        return values


@cache
def codec_of(model: type[Base]) -> RowCodec:
    """How the rows of a model are cached."""
    mapper: Mapper[Any] = inspect(model)
    names, types, json = [], [], []
    for place, attribute in enumerate(mapper.column_attrs):
        column = attribute.columns[0]
        is_json = isinstance(column.type, JSONB)
        value: Any = bytes if is_json else column.type.python_type
        names.append(attribute.key)
        # The null of JSON is None as well.
        is_optional = is_json or getattr(column, "nullable", False)
        types.append(value | None if is_optional else value)
        json += [place] if is_json else []
    return RowCodec(mapper, tuple(names), tuple(types), tuple(json))


class _Reading(NamedTuple):
    """How rows are read that have one value in some of the columns.

    Attributes:
        common_names, names: these columns, and the others.
        common, rows: the decoders of their values.
        common_json, json: those of them that have JSON.
    """

    common_names: tuple[str, ...]
    names: tuple[str, ...]
    common: Decoder[tuple[Any, ...]]
    rows: Decoder[list[tuple[Any, ...]]]
    common_json: Sequence[str]
    json: Sequence[str]


@lru_cache(maxsize=256)
def _reading(codec: RowCodec, places: tuple[int, ...]) -> _Reading:
    """How rows are read that have one value in the columns of these places.

    Raises:
        DamagedValue: there are no such columns.
    """
    every = range(len(codec.types))
    if not set(places) <= set(every):
        raise DamagedValue("it has other columns")
    rest = tuple(place for place in every if place not in places)
    common: Any = tuple[tuple(codec.types[place] for place in places)]  # type: ignore[misc]
    row: Any = tuple[tuple(codec.types[place] for place in rest)]  # type: ignore[misc]
    return _Reading(
        tuple(codec.names[place] for place in places),
        tuple(codec.names[place] for place in rest),
        Decoder(common),
        Decoder(list[row]),
        [codec.names[place] for place in places if place in codec.json],
        [codec.names[place] for place in rest if place in codec.json],
    )


def _is_common(values: Sequence[Any]) -> bool:
    if not values or type(values[0]) not in _COMPARABLE:
        return False
    first, kind = values[0], type(values[0])
    return all(type(value) is kind and value == first for value in values)
