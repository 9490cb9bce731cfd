"""The cache in Redis: what is read often is read from there, and PostgreSQL stays the truth."""

from observatory_storage.cache.cache import Cache
from observatory_storage.cache.counters import CacheKindStats, CacheStats
from observatory_storage.cache.read_through import CachedRead, OutOfDate, ReadThrough
from observatory_storage.cache.scopes import Dependency
from observatory_storage.cache.stored_value import DamagedValue, StoredValue, tag_of

__all__ = [
    "Cache",
    "CacheKindStats",
    "CacheStats",
    "CachedRead",
    "DamagedValue",
    "Dependency",
    "OutOfDate",
    "ReadThrough",
    "StoredValue",
    "tag_of",
]
