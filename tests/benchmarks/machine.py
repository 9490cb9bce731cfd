"""Describes the machine, the versions, the server and its settings."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import psycopg
from sqlalchemy import text

from observatory_storage import StoragePool

__all__ = ["machine_description"]

_SETTINGS: Final = (
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_level",
    "wal_compression",
    "shared_buffers",
    "max_wal_size",
    "checkpoint_timeout",
    "autovacuum",
    "default_toast_compression",
)
_PACKAGES: Final = ("sqlalchemy", "psycopg", "orjson", "asyncpg")


def machine_description(
    pool: StoragePool, *, embedded: bool, names: Sequence[str] = _SETTINGS
) -> dict[str, Any]:
    """The description by topic, for the head of a report, with these settings of the server."""
    with pool.engine.connect() as connection:
        server = connection.execute(text("SHOW server_version")).scalar_one()
        settings = {
            name: connection.execute(
                text("SELECT current_setting(:name, true)"), {"name": name}
            ).scalar_one()
            for name in names
        }
    return {
        "machine": f"{os.cpu_count()} cores ({_processor()}), {_memory()},"
        f" {platform.system()} {platform.release()}",
        "versions": {
            "PostgreSQL": server,
            "Python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
            "psycopg implementation": psycopg.pq.__impl__,
        },
        "server": "embedded: on this machine, by socket, with the defaults of PostgreSQL"
        if embedded
        else "of DATABASE_URL",
        "settings": settings,
    }


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    if listed.exists():
        for line in listed.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> str:
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"{size / 1024**3:.0f} GB"
