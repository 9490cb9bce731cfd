"""What psycopg converts for this package: times are UTC, JSON is read and written in one way.

It is registered on a connection of our own, or on each cursor where the connections belong to the
application, whose other users must not notice.
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
    """A context without a connection, to have psycopg make its classes in."""

    adapters: AdaptersMap
    connection: None = None


_decoder: Final = json.JSONDecoder()


def _loads(content: str | bytes) -> Any:
    """The value of JSON as the server writes it, which begins where it begins.

    By the standard library: orjson reads integers beyond 64 bits as floats. Past its `loads`, which
    looks for blanks and encodings that are not there.
    """
    return _decoder.raw_decode(content if isinstance(content, str) else str(content, "utf-8"))[0]


def _make_template() -> AdaptersMap:
    # Not a copy of psycopg's global map: the application may have registered its own there.
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
        """Hands out psycopg's own (compiled) loader, made without a connection.

        psycopg takes the time zone of results from the connection, and UTC where there is none:
        what the server, the role or the session has set does not matter then.
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
    """Register the conversions on a connection or on a cursor."""
    for name, loader in _LOADERS:
        context.adapters.register_loader(name, loader)
    for kind, dumper in _DUMPERS:
        context.adapters.register_dumper(kind, dumper)
