"""Shared by the models: their base class, and kinds of columns that many tables have."""

from __future__ import annotations

import uuid
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, Final, Self

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    Double,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Text,
    Uuid,
    func,
    inspect,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, validates
from sqlalchemy.orm.attributes import flag_modified

from observatory_storage.errors import ValidationError
from observatory_storage.models.mutable_json import track_changes
from observatory_storage.serialization import to_json
from observatory_storage.stored_json import decode_columns

__all__ = ["JSON", "NAME", "ORIGIN", "Base", "Bytes", "fraction", "json_object", "now", "one_of"]

# Ids and names compare by their bytes: cheaper to index, and the same on every host.
NAME: Final = Text(collation="C")
JSON: Final = JSONB(none_as_null=True)
_TIME: Final = DateTime(timezone=True)
_SHOWN_CHARACTERS: Final = 80

# The key under which a row's instance state keeps, in `info`, the session that read the row.
ORIGIN: Final = "observatory_storage.origin"


class Bytes(LargeBinary):
    """Bytes that are sent as they are, not as the `Binary` of the DB-API, whose dumper is slow."""

    def bind_processor(self, dialect: Dialect) -> None:
        del dialect


class Base(DeclarativeBase):
    """The base class of the models. A row is also a read-only mapping of its loaded columns.

    ``row["name"]``, ``dict(row)`` and ``{**row, "status": "error"}`` work, and pandas takes a list
    of rows. Columns that are not loaded are not in the mapping.

    A row that a repository returned is detached from the session. If you set an attribute while its
    unit of work is open, or change a JSON value in place (``row.attributes["ticket"] = 17``), the
    row is added to the session, and the next commit updates this row. Changing a span does not
    update the totals of its trace: write the span again with a writer instead.
    """

    _shown: ClassVar[str] = ""  # the columns that `repr` shows

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "ix": "ix_%(column_0_label)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - the name and form are SQLAlchemy's
        str: Text(),
        datetime: _TIME,
        int: BigInteger(),
        float: Double(),
        Decimal: Numeric(),
        uuid.UUID: Uuid(),
        dict[str, Any]: JSON,
        list[Any]: JSON,
    }

    def to_dict(self, *, json: bool = False) -> dict[str, Any]:
        """Return the loaded columns by name, as a new dictionary.

        Loaded collections (``events``, ``spans``, ``points``, ``logs``) are included as lists of
        dictionaries. A parent row (``span.trace``) is not included.

        Args:
            json: convert each value for `json.dumps`. Times become ISO 8601 text in UTC
                (``2026-01-31T12:00:00Z``), UUIDs become dashed text, and Decimals become text with
                all their digits.
        """
        named: dict[str, Any] = to_json(self._loaded()) if json else self._loaded()
        for relationship in inspect(type(self)).relationships:
            if relationship.uselist and relationship.key in self.__dict__:
                rows = self.__dict__[relationship.key]
                named[relationship.key] = [row.to_dict(json=json) for row in rows]
        return named

    def _loaded(self) -> dict[str, Any]:
        decode_columns(self.__dict__)
        names = (attribute.key for attribute in inspect(type(self)).column_attrs)
        return {name: self.__dict__[name] for name in names if name in self.__dict__}

    def keys(self) -> KeysView[str]:
        """Return the names of the loaded columns, in the table's order."""
        return self._loaded().keys()

    def values(self) -> ValuesView[Any]:
        """Return the values of the loaded columns."""
        return self._loaded().values()

    def items(self) -> ItemsView[str, Any]:
        """Return the loaded columns with their values."""
        return self._loaded().items()

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a loaded column, or the default."""
        return self._loaded().get(name, default)

    def __getitem__(self, name: str) -> Any:
        if name not in self.__dict__ or name not in inspect(type(self)).column_attrs:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaded())

    def __len__(self) -> int:
        return len(self._loaded())

    def __bool__(self) -> bool:
        return True

    def __init__(self, **values: Any) -> None:
        kind = type(self)
        for name, value in values.items():
            if not hasattr(kind, name):
                raise TypeError(f"{name!r} is not an attribute of {kind.__name__}")
            setattr(self, name, value)

    @classmethod
    def of_columns(cls, values: Mapping[str, Any]) -> Self:
        """A new row with the values of columns. Setting each by itself takes ten times as long."""
        row = cls()
        row.__dict__.update(values)
        return row

    def _attach(self) -> None:
        """Add the row to the session that it was read in, for a change of a column."""
        state = inspect(self)
        # A copy by `copy.copy` shares its state with the row that the state tracks.
        if state.session_id is None and state.obj() is self and ORIGIN in state.info:
            state.info[ORIGIN].attach(self)

    def _note_change(self, name: str) -> None:
        """Have the session write a JSON value that is changed in place."""
        self._attach()
        if inspect(self).obj() is self and name in self.__dict__:
            flag_modified(self, name)

    @validates("events", "logs", "metric", "points", "spans", "trace")
    def _check_related(self, name: str, row: Any) -> Any:
        kind = inspect(type(self)).relationships[name].mapper.class_
        if row is not None and not isinstance(row, kind):
            raise ValidationError(name, row, f"must be a {kind.__name__}")
        if row is not None and inspect(self).key is not None and inspect(row).key is None:
            raise ValidationError(
                name, row, "is not stored by a row that was read: add it to the session itself"
            )
        return row

    def __repr__(self) -> str:
        # Only what is loaded: showing a row must not query the database for the rest of it.
        values = ((name, self.__dict__.get(name)) for name in self._shown.split())
        facts = (f" {name}={_brief(value)}" for name, value in values if value is not None)
        return f"<{type(self).__name__}{''.join(facts)}>"


track_changes(Base)

# pandas names its columns by the keys if rows are mappings. `Mapping` cannot be a base class here:
# its metaclass is not SQLAlchemy's, and it would compare rows by their content.
Mapping.register(Base)


def _brief(value: object) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= _SHOWN_CHARACTERS else f"{value[:_SHOWN_CHARACTERS]}…")
    return value.isoformat() if isinstance(value, datetime) else str(value)


def json_object(doc: str) -> Mapped[dict[str, Any]]:
    """A column for a JSON object; the default is an empty object."""
    return mapped_column(JSON, server_default=text("'{}'"), doc=doc)


def now(doc: str) -> Mapped[datetime]:
    """A column that the server sets to the time of the transaction."""
    return mapped_column(server_default=func.now(), doc=doc)


def fraction(doc: str) -> Mapped[int]:
    """A column for the nanoseconds (0-999) of a time beyond its microseconds."""
    return mapped_column(SmallInteger, server_default=text("0"), doc=doc)


def one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    """The check that a column has one of the values."""
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)
