"""Loaders and dumpers of psycopg for this package: times are UTC, and JSON is exact.

They are registered on each connection that this package opens. If the connections belong to the
application, they are registered on each cursor, so that the application's queries do not change.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, cast

import psycopg
from psycopg.abc import AdaptContext
from psycopg.adapt import AdaptersMap, Loader, PyFormat
from psycopg.pq import Format
from psycopg.types.datetime import TimestamptzBinaryLoader, TimestamptzLoader
from psycopg.types.json import Json, Jsonb, set_json_dumps, set_json_loads

from observatory_storage import jsonb

__all__ = ["adapt"]

_TIME: Final = "timestamptz"


@dataclass(frozen=True)
class _Template:
    """An AdaptContext without a connection, in which psycopg creates its classes."""

    adapters: AdaptersMap
    connection: None = None


_decoder: Final = json.JSONDecoder()


def _loads(content: str | bytes) -> Any:
    """Parse JSON as the server writes it.

    The parser is that of the standard library, since orjson reads integers beyond 64 bits as
    floats. Its `raw_decode` is faster than `loads`, which first looks for blanks and encodings that
    the server never writes.
    """
    return _decoder.raw_decode(content if isinstance(content, str) else str(content, "utf-8"))[0]


def _make_template() -> AdaptersMap:
    # Not a copy of psycopg's global map, where the application may have registered adapters.
    adapters = AdaptersMap(types=psycopg.adapters.types)
    template = _Template(adapters)
    set_json_dumps(jsonb.dumps, template)
    set_json_loads(_loads, template)
    adapters.register_loader(_TIME, TimestamptzLoader)
    adapters.register_loader(_TIME, TimestamptzBinaryLoader)
    return adapters


_template: Final = _make_template()


def _loader(type_name: str, format_: Format) -> type[Any]:
    oid = psycopg.adapters.types[type_name].oid
    return cast(type[Any], _template.get_loader(oid, format_))


def _in_utc(format_: Format) -> type[Loader]:
    inner = _loader(_TIME, format_)

    class UtcLoader(Loader):
        """Creates psycopg's compiled loader without a connection.

        psycopg takes the time zone of results from the connection, and uses UTC without one. So the
        time zone of the server, the role or the session has no effect.
        """

        format = format_

        def __new__(cls, oid: int, _context: AdaptContext | None = None) -> Any:
            return inner(oid, None)

    return UtcLoader


_LOADERS: Final = tuple(
    (name, _loader(name, format_) if name != _TIME else _in_utc(format_))
    for name in (_TIME, "json", "jsonb")
    for format_ in (Format.TEXT, Format.BINARY)
)
_DUMPERS: Final = tuple(
    (kind, _template.get_dumper(kind, format_))
    for kind in (Json, Jsonb)
    for format_ in (PyFormat.TEXT, PyFormat.BINARY)
)


def adapt(context: AdaptContext) -> None:
    """Register the loaders and dumpers on a connection or a cursor."""
    for name, loader in _LOADERS:
        context.adapters.register_loader(name, loader)
    for kind, dumper in _DUMPERS:
        context.adapters.register_dumper(kind, dumper)
