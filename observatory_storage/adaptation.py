"""How psycopg converts values for this package, whatever the application has registered.

Numbers, text, UUIDs and JSON are read and written as psycopg's documentation says, and times are
UTC. Connections of our own are made with a complete map of adapters. An application's connections
keep theirs: what differs there is set on each cursor, so that other users of the connection do not
notice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.abc import AdaptContext
from psycopg.adapt import AdaptersMap, Loader, PyFormat
from psycopg.postgres import register_default_adapters
from psycopg.pq import Format
from psycopg.types.array import register_all_arrays
from psycopg.types.json import Json, Jsonb, set_json_dumps, set_json_loads

from observatory_storage import jsonb

__all__ = ["ADAPTERS", "Adaptation", "differences"]

Adaptation = Callable[[AdaptContext], None]

_TIME: Final = "timestamptz"
# The types that this package's statements read, and the classes of the values that it sends.
_READ: Final = (
    *("bool", "bytea", "int2", "int4", "int8", "float4", "float8", "numeric"),
    *("text", "varchar", "bpchar", "name", "uuid", "date", _TIME, "json", "jsonb"),
)
_WRITTEN: Final = (
    *(bool, bytes, int, float, Decimal, str, UUID, date, datetime, list, type(None)),
    *(Json, Jsonb),
)
_FORMATS: Final = (Format.TEXT, Format.BINARY)


@dataclass(frozen=True)
class _Context:
    """A context without a connection."""

    adapters: AdaptersMap
    connection: None = None


def _in_utc(inner: Any, format_: Format) -> type[Loader]:
    class UtcLoader(Loader):
        """Hands out psycopg's own (compiled) loader, made without a connection.

        psycopg takes the time zone of results from the connection, and UTC where there is none.
        So neither the server, nor the role, nor the session decides the zone.
        """

        format = format_

        def __new__(cls, oid: int, _context: AdaptContext | None = None) -> Any:
            return inner(oid, None)

    return UtcLoader


def _oid(type_name: str) -> int:
    return psycopg.adapters.types[type_name].oid


def _complete_map() -> AdaptersMap:
    # Not a copy of psycopg's global map: the application may have registered its own there.
    adapters = AdaptersMap(types=psycopg.adapters.types)
    context = _Context(adapters)
    register_default_adapters(context)
    register_all_arrays(context)
    set_json_dumps(jsonb.dumps, context)
    set_json_loads(jsonb.loads, context)
    for format_ in _FORMATS:
        inner = adapters.get_loader(_oid(_TIME), format_)
        adapters.register_loader(_TIME, _in_utc(inner, format_))
    return adapters


ADAPTERS: Final = _Context(_complete_map())


def differences(theirs: AdaptersMap) -> tuple[Adaptation, ...]:
    """What must be registered beside another map, so that it converts as `ADAPTERS` does."""
    return (*_loaders_that_differ(theirs), *_dumpers_that_differ(theirs))


def _loaders_that_differ(theirs: AdaptersMap) -> Iterator[Adaptation]:
    def registration(oid: int, loader: type[Loader]) -> Adaptation:
        return lambda context: context.adapters.register_loader(oid, loader)

    for oid in map(_oid, _READ):
        for format_ in _FORMATS:
            loader: Any = ADAPTERS.adapters.get_loader(oid, format_)
            if theirs.get_loader(oid, format_) is not loader:
                yield registration(oid, loader)


def _dumpers_that_differ(theirs: AdaptersMap) -> Iterator[Adaptation]:
    def registration(kind: type, dumper: Any) -> Adaptation:
        return lambda context: context.adapters.register_dumper(kind, dumper)

    for kind in _WRITTEN:
        differs = [
            format_
            for format_ in PyFormat
            if _dumper(theirs, kind, format_) is not _dumper(ADAPTERS.adapters, kind, format_)
        ]
        if differs:
            # The last one registered is the one that AUTO takes.
            preferred = _dumper(ADAPTERS.adapters, kind, PyFormat.AUTO)
            others = [_dumper(ADAPTERS.adapters, kind, f) for f in (PyFormat.TEXT, PyFormat.BINARY)]
            for dumper in (*(one for one in others if one not in (None, preferred)), preferred):
                yield registration(kind, dumper)


def _dumper(adapters: AdaptersMap, kind: type, format_: PyFormat) -> Any:
    try:
        return adapters.get_dumper(kind, format_)
    except psycopg.ProgrammingError:
        return None
