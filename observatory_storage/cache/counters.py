"""Counts what the cache does, in this process."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from observatory_storage.cache.client import NotAsked
from observatory_storage.operations import Hooks, StoreOperation
from observatory_storage.processes import PerProcess
from observatory_storage.serialization import Result

__all__ = ["KINDS", "CacheCounters", "CacheKindStats", "CacheStats"]

KINDS: Final = ("traces", "names", "statistics", "metrics")
# What hooks are told: the request to the cache, and how it went.
_FACTS: Final = {
    "hits": ("get", "hit"),
    "misses": ("get", "miss"),
    "bypassed": ("get", "miss"),
    "errors": ("get", "error"),
    "stored": ("set", "ok"),
    "refused": ("set", "error"),
    "told": ("invalidate", "ok"),
    "late": ("invalidate", "ok"),
    "failed": ("invalidate", "error"),
}


@dataclass(frozen=True, slots=True)
class CacheKindStats(Result):
    """What the cache has done with values of one kind.

    Attributes:
        hits: reads that were answered from the cache.
        misses: reads whose value was not there, or was out of date.
        bypassed: reads that did not use the cache: their transaction had written something, or
            somebody was committing rows that the value depends on.
        errors: reads for which Redis did not answer, or was not asked because it did not before.
        stored: values that were stored.
        refused: values that Redis did not store, mostly because its memory is full.
        outdated: values that were not stored, since rows were written while they were read.
        too_large: values that were not stored, since they exceed ``max_value_bytes``.
        damaged: values that could not be read, or that another version of the package has stored.
        waited: reads that waited until another one had filled the value.
    """

    hits: int = 0
    misses: int = 0
    bypassed: int = 0
    errors: int = 0
    stored: int = 0
    refused: int = 0
    outdated: int = 0
    too_large: int = 0
    damaged: int = 0
    waited: int = 0


@dataclass(frozen=True, slots=True)
class CacheStats(Result):
    """What the cache has done in this process since the pool was created.

    Attributes:
        is_enabled: whether reads are cached at all.
        is_open: whether Redis is not asked for now, because it did not answer.
        openings: how often that was so.
        invalidations: commits after which values were taken back.
        failed_invalidations: commits after which this failed. It is tried again until it succeeds.
        is_behind: whether it is being tried again now.
        kinds: by kind: ``traces``, ``names``, ``statistics`` and ``metrics``.
    """

    is_enabled: bool
    is_open: bool = False
    openings: int = 0
    invalidations: int = 0
    failed_invalidations: int = 0
    is_behind: bool = False
    kinds: Mapping[str, CacheKindStats] = field(default_factory=dict)


class _Counts:
    """The numbers of one process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.of: Counter[tuple[str, str]] = Counter()


class CacheCounters:
    """The numbers of `CacheStats`. A forked child counts from zero."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        # A thread of the parent may hold the lock at the fork, so the child has one of its own.
        self._process = PerProcess(_Counts)

    def began(self) -> float:
        """When a request begins. Without a hook, no clock is read."""
        return time.perf_counter() if self._hooks.are_called else 0.0

    def count(
        self, kind: str, outcome: str, began: float = 0.0, *, failure: Exception | None = None
    ) -> None:
        """Count one outcome of a kind, and tell hooks of it.

        Args:
            kind: the kind of the value, or ``commits``.
            outcome: what is counted.
            began: when the request began; 0 if that was not measured.
            failure: why the request failed. Hooks are told of requests that were sent only: else
                they would be told of an error with each read while Redis is not asked.
        """
        counts = self._process.get()
        with counts.lock:
            counts.of[kind, outcome] += 1
        if outcome in _FACTS and self._hooks.are_called and not isinstance(failure, NotAsked):
            method, told = _FACTS[outcome]
            seconds = time.perf_counter() - began if began else 0.0
            self._hooks.emit(StoreOperation("cache", kind, method, told, seconds))

    def get(self, kind: str, outcome: str) -> int:
        """How often a kind had an outcome."""
        return self._process.get().of[kind, outcome]

    def by_kind(self) -> dict[str, CacheKindStats]:
        """The numbers of all kinds."""
        counts = self._process.get()
        with counts.lock:
            copied = dict(counts.of)
        return {
            kind: CacheKindStats(**{name: n for (of, name), n in copied.items() if of == kind})
            for kind in KINDS
        }
