"""The columns that rows and results have in Arrow.

A shape is known before there is a row, so an empty result has the same schema as any other.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any, Final, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from observatory_storage import jsonb
from observatory_storage.errors import ConfigError
from observatory_storage.models import Base

__all__ = ["Field", "Kind", "Shape", "arrow_module", "shape_of_model", "shape_of_results"]

Kind = Literal[
    "text",
    "texts",
    "uuid",
    "json",
    "group",
    "time",
    "flag",
    "int16",
    "int32",
    "int64",
    "float",
    "decimal",
]
_GROUP: Final = "group"


def arrow_module() -> Any:
    """The module `pyarrow`.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError:
        raise ConfigError(
            "Arrow needs the extra: pip install 'observatory-storage[arrow]'"
        ) from None
    return pa


class Field(NamedTuple):
    """A column: its name in Arrow, and what its values are in Python."""

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Shape:
    """The columns of a kind of rows or results.

    Attributes:
        kind: the class of the rows: a model, a dataclass or a named tuple.
        fields: the columns. Those of groups are last, and are named ``group.<key>``.
    """

    kind: type[Any]
    fields: tuple[Field, ...]

    def schema(self) -> Any:
        """The schema, a `pyarrow.Schema`."""
        pa = arrow_module()
        return pa.schema([(name, _arrow_type(pa, kind)) for name, kind in self.fields])

    def table(self, rows: Collection[Any]) -> Any:
        """The rows as a `pyarrow.Table`."""
        pa = arrow_module()
        columns = []
        for name, kind in self.fields:
            values = self._values(rows, name, kind)
            convert = _CONVERSIONS.get(kind)
            if convert is not None:
                values = [None if value is None else convert(value) for value in values]
            columns.append(pa.array(values, _arrow_type(pa, kind)))
        return pa.Table.from_arrays(columns, schema=self.schema())

    def rows_of(self, table: Any) -> list[dict[str, Any]]:
        """The rows of a table that has some of these columns, with UUIDs in place of their text."""
        kinds = dict(self.fields)
        uuids = [name for name in table.column_names if kinds[name] == "uuid"]
        rows: list[dict[str, Any]] = table.to_pylist()
        for row in rows:
            row.update({name: UUID(row[name]) for name in uuids if row[name] is not None})
        return rows

    def _values(self, rows: Collection[Any], name: str, kind: Kind) -> list[Any]:
        if kind == "group":
            key = name.partition(".")[2]
            return [row.group.get(key) for row in rows]
        if issubclass(self.kind, Base):
            # Not by the attribute: the first access to JSON would wrap the value.
            return [vars(row)[name] if name in vars(row) else getattr(row, name) for row in rows]
        return [getattr(row, name) for row in rows]


@cache
def shape_of_model(model: type[Base], left_out: Collection[str] = ()) -> Shape:
    """The columns of a table, in their order.

    Args:
        model: its model.
        left_out: columns that are not loaded.
    """
    attributes = sa.inspect(model).column_attrs
    columns = {attribute.key: attribute.columns[0].type for attribute in attributes}
    return Shape(
        model,
        tuple(
            Field(name, _kind_of_column(type_))
            for name, type_ in columns.items()
            if name not in left_out
        ),
    )


@cache
def shape_of_results(kind: type[Any], groups: Sequence[str] = ()) -> Shape:
    """The fields of a class of results.

    Args:
        kind: a dataclass or a named tuple.
        groups: the keys of its field ``group``, which become columns.
    """
    hints = get_type_hints(kind)
    plain = [Field(name, _kind_of_hint(hint)) for name, hint in hints.items() if name != _GROUP]
    of_group = (Field(f"{_GROUP}.{key}", "group") for key in groups)
    return Shape(kind, (*plain, *of_group))


def _kind_of_column(type_: sa.types.TypeEngine[Any]) -> Kind:
    # From the special to the general: a BigInteger is an Integer, a Double is a Numeric.
    for known, kind in _COLUMN_KINDS:
        if isinstance(type_, known):
            return kind
    raise TypeError(f"columns of the type {type_!r} have no type in Arrow")


_COLUMN_KINDS: Final[tuple[tuple[type[Any], Kind], ...]] = (
    (JSONB, "json"),
    (sa.Uuid, "uuid"),
    (sa.String, "text"),
    (sa.DateTime, "time"),
    (sa.Boolean, "flag"),
    (sa.SmallInteger, "int16"),
    (sa.BigInteger, "int64"),
    (sa.Integer, "int32"),
    (sa.Float, "float"),
    (sa.Numeric, "decimal"),
)
_HINT_KINDS: Final[dict[Any, Kind]] = {
    str: "text",
    UUID: "uuid",
    datetime: "time",
    bool: "flag",
    int: "int64",
    float: "float",
    Decimal: "decimal",
    tuple[str, ...]: "texts",
}


def _kind_of_hint(hint: Any) -> Kind:
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (each for each in get_args(hint) if each is not types.NoneType)
    if get_origin(hint) is Literal:
        hint = type(get_args(hint)[0])
    return _HINT_KINDS[hint]


def _arrow_type(pa: Any, kind: Kind) -> Any:
    match kind:
        case "time":
            return pa.timestamp("us", tz="UTC")
        case "flag":
            return pa.bool_()
        case "int16" | "int32" | "int64":
            return getattr(pa, kind)()
        case "float" | "decimal":
            return pa.float64()
        case "texts":
            return pa.list_(pa.string())
        case _:
            return pa.string()


def _group_text(value: Any) -> str:
    return value if isinstance(value, str) else jsonb.dumps(value).decode()


def _json_text(value: Mapping[str, Any] | Sequence[Any]) -> str:
    return jsonb.dumps(value).decode()


_CONVERSIONS: Final[dict[Kind, Callable[[Any], Any]]] = {
    "uuid": str,
    "json": _json_text,
    "group": _group_text,
    "decimal": float,
}
