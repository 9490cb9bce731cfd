"""`Cache`: the cache of a pool."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from observatory_storage.cache.client import CacheClient, Refused, Unavailable
from observatory_storage.cache.counters import CacheCounters, CacheStats
from observatory_storage.cache.invalidation import Invalidation
from observatory_storage.cache.keyspace import Keyspace
from observatory_storage.cache.read_through import ReadThrough
from observatory_storage.cache.value_store import ValueStore
from observatory_storage.commits import Commits
from observatory_storage.config import StorageConfig
from observatory_storage.errors import CacheError, translated
from observatory_storage.operations import Hooks

__all__ = ["Cache"]

_WITH_GENERATIONS: Final = ("names", "statistics", "metrics")
_PATIENT_SECS: Final = 5.0


class Cache:
    """The cache of a pool: what it has done, and how to empty it.

    `StoragePool.cache` is the one of a pool. Repositories use it by themselves.

    Args:
        config: the configuration of the pool. Without Redis, nothing is cached.
        engine: connects to the database.
        commits: the commits after which cached values are taken back.
        hooks: are told of each request to the cache.
    """

    def __init__(
        self, config: StorageConfig, engine: sa.Engine, commits: Commits, hooks: Hooks
    ) -> None:
        self._engine = engine
        settings, url = config.cache, config.redis.url
        self._counters = CacheCounters(hooks)
        self._reads: ReadThrough | None = None
        ttls = {
            "traces": settings.traces_ttl,
            "names": settings.names_ttl,
            "statistics": settings.statistics_ttl,
            "metrics": settings.metrics_ttl,
        }
        if url is None or not settings.enabled or not any(ttls.values()):
            return
        address = url.get_secret_value()
        self._keys = Keyspace(settings.prefix, config.postgres.schema_name)
        self._client = CacheClient(address, settings.timeout_ms / 1000)
        # Until commits reach Redis again, others may see what is out of date.
        self._committing = CacheClient(
            address, settings.commit_timeout_ms / 1000, longest_pause_secs=2.0
        )
        self._patient = CacheClient(address, _PATIENT_SECS)
        self._invalidation = Invalidation(
            self._committing,
            self._keys,
            self._counters,
            max(ttls.values()),
            with_generations=bool(
                any(ttls[kind] for kind in _WITH_GENERATIONS) or settings.traces_recheck
            ),
        )
        self._reads = ReadThrough(
            ValueStore(self._client, self._keys, self._invalidation),
            self._counters,
            settings,
            ttls,
        )
        commits.add_guard(self._invalidation)

    @property
    def reads(self) -> ReadThrough | None:
        """What repositories read through; None if nothing is cached."""
        return self._reads

    def stats(self) -> CacheStats:
        """Count what the cache has done in this process."""
        if self._reads is None:
            return CacheStats(is_enabled=False, kinds=self._counters.by_kind())
        count = self._counters.get
        breaker = self._client.breaker
        return CacheStats(
            is_enabled=True,
            is_open=breaker.is_open,
            openings=breaker.times_opened,
            invalidations=count("commits", "told") + count("commits", "late"),
            failed_invalidations=count("commits", "failed"),
            is_behind=self._invalidation.is_behind,
            kinds=self._counters.by_kind(),
        )

    def clear(self) -> None:
        """Remove all cached values of this schema, those of other processes included.

        Call it after you have changed metrics or spans by SQL of your own, or restored a backup.
        Without Redis, it does nothing.

        Raises:
            CacheError: Redis could not be used.
            StorageError: the database could not be asked who it is.
        """
        if self._reads is None:
            return
        if not self._keys.is_known:
            with translated(), self._engine.connect() as connection:
                self._keys.learn(connection)
        try:
            self._invalidation.end_all()
            self._patient.unlink(self._keys.pattern(), besides=b":g:epoch")
        except (Refused, Unavailable) as error:
            raise CacheError(f"Redis could not be used: {error}") from error

    def close(self) -> None:
        """Close the connections: those in use as soon as they are not any more."""
        if self._reads is not None:
            self._invalidation.close()
            for client in (self._client, self._committing, self._patient):
                client.close()
