"""What is asked from the catalog for a table from time to time, and remembered for each engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import sqlalchemy as sa

from observatory_storage.errors import translated
from observatory_storage.models import Base
from observatory_storage.repositories.reading.reader import Reader

__all__ = ["CatalogFacts"]

T = TypeVar("T")

_REMEMBERED_SECS: Final = 60


class _Known(NamedTuple, Generic[T]):
    fact: T
    until: float


class CatalogFacts(Generic[T]):
    """A fact of each table, which may be some time old.

    Args:
        ask: asks it from a connection, for a schema and the name of a table.
    """

    def __init__(self, ask: Callable[[sa.Connection, str, str], T]) -> None:
        self._ask = ask
        self._known: WeakKeyDictionary[sa.Engine, dict[str, _Known[T]]] = WeakKeyDictionary()

    def of(self, reader: Reader, model: type[Base]) -> T:
        """The fact of the table of a model."""
        with translated():  # also where rows are iterated over
            connection = reader.session.connection({"mapper": sa.inspect(model)})
        known = self._known.setdefault(connection.engine, {})
        table_name, now = model.__tablename__, time.monotonic()
        found = known.get(table_name)
        if found is None or found.until < now:
            options = connection.get_execution_options()
            schema = (options.get("schema_translate_map") or {}).get(None) or "public"
            with translated():
                fact = self._ask(connection, schema, table_name)
            found = known[table_name] = _Known(fact, now + _REMEMBERED_SECS)
        return found.fact

    def forget(self, engine: sa.Engine) -> None:
        """Ask the catalog anew when a fact is needed next."""
        self._known.pop(engine, None)
