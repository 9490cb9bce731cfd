"""Rows in a spool, and its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from observatory_storage.rows import Row
from observatory_storage.tables import TABLES
from observatory_storage.writers.spool import line_format
from observatory_storage.writers.spool.files import Spool
from tests.rows.samples import LEAST, PREPARE
from tests.writers.helpers import START

MIB = 1024 * 1024
EVENTS = [
    {"name": "first", "timestamp": START, "attributes": {"a": [1, {"b": None}]}},
    {"name": "next\n", "timestamp": START.replace(microsecond=10), "timestamp_ns": 999},
]


def prepared(table: str, **given: Any) -> Row:
    return PREPARE[table](LEAST[table] | given)


def logs(*bodies: str) -> list[Row]:
    return [prepared("logs", body=body) for body in bodies]


def bodies(rows: list[Row]) -> list[Any]:
    return [row.values[TABLES["logs"].position["body"]] for row in rows]


def spool_in(directory: Path, max_bytes: int = MIB, target: str = "db/public") -> Spool:
    spool = Spool(directory, target, max_bytes)
    spool.prepare()
    return spool


def drain(spool: Spool, at_once: int = 1000) -> list[Row]:
    """All rows of the spool, which is empty afterwards."""
    found = []
    while (chunk := spool.read(at_once)) is not None:
        found += chunk.rows
        spool.done(chunk)
    return found


def names(directory: Path) -> list[str]:
    return sorted(path.suffix for path in directory.iterdir() if path.name != ".lock")


def the_file(directory: Path) -> Path:
    (path,) = directory.glob("*.spool")
    return path


def line_of(row: Row) -> bytes:
    line, repairs = line_format.encode(row)
    assert repairs == 0
    return line
