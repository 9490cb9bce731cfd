"""The methods of a pool for live data."""

from __future__ import annotations

from collections.abc import Callable, Generator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from sqlalchemy import Engine

from observatory_storage.commits import Commits
from observatory_storage.config import StorageConfig, StreamSignal
from observatory_storage.errors import PoolError, StorageError
from observatory_storage.models import LogRecord, MetricDataPoint, Trace, TraceSpan
from observatory_storage.streams.publish_queue import StreamStats
from observatory_storage.streams.publisher import Publisher

# What reads is imported when it is called: a process that only writes starts without it.
if TYPE_CHECKING:
    from observatory_storage.repositories import LogFilters, SpanFilters, TraceFilters
    from observatory_storage.repositories.logs.filters import LogKeywords
    from observatory_storage.repositories.metrics.point_filters import (
        DataPointFilters,
        DataPointKeywords,
    )
    from observatory_storage.repositories.reading.pages import Page
    from observatory_storage.repositories.traces.filters import SpanKeywords, TraceKeywords
    from observatory_storage.streams.live_stream import LiveStream, StreamGap
    from observatory_storage.streams.thresholds import Threshold, ThresholdPassed
    from observatory_storage.streams.watcher import Watch
    from observatory_storage.unit_of_work import UnitOfWork

__all__ = ["LivePool"]

Pause = float | timedelta


class LivePool:
    """The methods of `StoragePool` for live data."""

    config: StorageConfig
    engine: Engine
    schema: str
    commits: Commits
    _closed: bool
    _publisher: Publisher | None

    if TYPE_CHECKING:

        def unit_of_work(self) -> UnitOfWork: ...

    def _require_open(self) -> None:
        if self._closed:
            raise PoolError("the pool is closed", retryable=False)

    @overload
    def stream(
        self,
        signal: Literal["spans"],
        filters: SpanFilters | None = None,
        *,
        after: str | None = None,
        group: str | None = None,
        consumer: str | None = None,
        timeout: Pause | None = None,
        claim_after: Pause = 60,
        on_gap: Callable[[StreamGap], object] | None = None,
        **fields: Unpack[SpanKeywords],
    ) -> LiveStream[TraceSpan]: ...
    @overload
    def stream(
        self,
        signal: Literal["traces"],
        filters: TraceFilters | None = None,
        *,
        after: str | None = None,
        group: str | None = None,
        consumer: str | None = None,
        timeout: Pause | None = None,
        claim_after: Pause = 60,
        on_gap: Callable[[StreamGap], object] | None = None,
        **fields: Unpack[TraceKeywords],
    ) -> LiveStream[Trace]: ...
    @overload
    def stream(
        self,
        signal: Literal["logs"],
        filters: LogFilters | None = None,
        *,
        after: str | None = None,
        group: str | None = None,
        consumer: str | None = None,
        timeout: Pause | None = None,
        claim_after: Pause = 60,
        on_gap: Callable[[StreamGap], object] | None = None,
        **fields: Unpack[LogKeywords],
    ) -> LiveStream[LogRecord]: ...
    @overload
    def stream(
        self,
        signal: Literal["data_points"],
        filters: DataPointFilters | None = None,
        *,
        after: str | None = None,
        group: str | None = None,
        consumer: str | None = None,
        timeout: Pause | None = None,
        claim_after: Pause = 60,
        on_gap: Callable[[StreamGap], object] | None = None,
        **fields: Unpack[DataPointKeywords],
    ) -> LiveStream[MetricDataPoint]: ...
    def stream(
        self,
        signal: StreamSignal,
        filters: Any = None,
        *,
        after: str | None = None,
        group: str | None = None,
        consumer: str | None = None,
        timeout: Pause | None = None,
        claim_after: Pause = 60,
        on_gap: Callable[[StreamGap], object] | None = None,
        **fields: Any,
    ) -> LiveStream[Any]:
        """Iterate over rows as writers commit them, read from Redis Streams.

        The setting ``streams.signals`` says what writers publish. The columns are those of the
        stored row. Columns of JSON and the bodies of logs are published only with
        ``streams.payloads``; reading another column raises `StorageError`. A row that is written
        again is published again. Of ``traces``, there is an entry for each trace that a commit
        changed, and its row is as it is stored when the entry is read.

        Redis is not the truth: rows that are not published are told as a `StreamGap`, and are in
        the database. `tail` returns every row.

        Example::

            with pool.stream("logs", min_severity="ERROR", group="alerts") as stream:
                for entry in stream:
                    notify(entry.row.service_name, entry.row.severity_text)

        Args:
            signal: ``"spans"``, ``"traces"``, ``"logs"`` or ``"data_points"``.
            filters: `SpanFilters`, `TraceFilters`, `LogFilters` or `DataPointFilters`, or their
                fields as keywords. ``limit`` does not apply, and is refused as a keyword.
                Conditions on attributes and words are decided by a query for each entry, all others
                on the published values.
            after: where to begin: ``"$"`` (the default) with the next row, ``"0"`` with the oldest
                that Redis has, or the `StreamEntry.id` of the last row that was handled. With a
                group, it is where a group begins that does not exist.
            group: the name of a consumer group. Its consumers share the rows. A row is acknowledged
                when the next one is asked for, up to 100 rows at a time: when a consumer dies,
                others get at most so many rows again, and none is left out.
            consumer: the name of this consumer in the group, a random one by default. A consumer
                that comes back under its name first gets what it has not acknowledged.
            timeout: end after so many seconds without a row. None waits for ever.
            claim_after: after how many seconds others get the rows of a consumer that has died.
            on_gap: is called with each `StreamGap`; by default, a warning is logged.

        Raises:
            ConfigError: Redis is not configured.
            PoolError: the pool is closed.
            ValidationError: an argument is invalid.
            CacheError: Redis refuses to read the stream, when iterating.
            StorageError: the database could not be read, when iterating.
        """
        from observatory_storage.streams.stream_opening import open_stream

        self._require_open()
        return open_stream(
            self,
            signal,
            filters,
            fields,
            after=after,
            group=group,
            consumer=consumer,
            timeout=timeout,
            claim_after=claim_after,
            on_gap=on_gap,
        )

    @overload
    def tail(
        self,
        signal: Literal["spans"],
        filters: SpanFilters | None = None,
        *,
        cursor: str | None = None,
        payload: bool = False,
        poll_interval: Pause = 1,
        timeout: Pause | None = None,
        on_error: Callable[[StorageError], object] | None = None,
        **fields: Unpack[SpanKeywords],
    ) -> Generator[Page[TraceSpan]]: ...
    @overload
    def tail(
        self,
        signal: Literal["traces"],
        filters: TraceFilters | None = None,
        *,
        cursor: str | None = None,
        payload: bool = False,
        poll_interval: Pause = 1,
        timeout: Pause | None = None,
        on_error: Callable[[StorageError], object] | None = None,
        **fields: Unpack[TraceKeywords],
    ) -> Generator[Page[Trace]]: ...
    @overload
    def tail(
        self,
        signal: Literal["logs"],
        filters: LogFilters | None = None,
        *,
        cursor: str | None = None,
        payload: bool = False,
        poll_interval: Pause = 1,
        timeout: Pause | None = None,
        on_error: Callable[[StorageError], object] | None = None,
        **fields: Unpack[LogKeywords],
    ) -> Generator[Page[LogRecord]]: ...
    @overload
    def tail(
        self,
        signal: Literal["data_points"],
        filters: DataPointFilters | None = None,
        *,
        cursor: str | None = None,
        payload: bool = False,
        poll_interval: Pause = 1,
        timeout: Pause | None = None,
        on_error: Callable[[StorageError], object] | None = None,
        **fields: Unpack[DataPointKeywords],
    ) -> Generator[Page[MetricDataPoint]]: ...
    def tail(
        self,
        signal: StreamSignal,
        filters: Any = None,
        *,
        cursor: str | None = None,
        payload: bool = False,
        poll_interval: Pause = 1,
        timeout: Pause | None = None,
        on_error: Callable[[StorageError], object] | None = None,
        **fields: Any,
    ) -> Generator[Page[Any]]:
        """Follow rows as they are stored, page by page: none is skipped or returned twice.

        The rows come from PostgreSQL, so Redis is not needed. If it is configured and the signal is
        published, rows come at once, otherwise after at most ``poll_interval``. The first page has
        the newest rows, and all later pages have the rows that arrived since, in the order in which
        they arrived. The first page may be empty, and so may the first one after an outage.
        `Page.next` of the last page that was handled is the ``cursor`` from which another call
        continues. Spans and traces come again when they are changed; see
        `TraceRepository.tail_spans`. A trace comes when it has got spans.

        While the database does not answer, the tail tries again until ``timeout``, or, when
        ``end_time`` has passed, `RetryConfig.max_attempts` times. The same holds while the address
        leads to a standby, if it has led to a primary before.

        Example::

            for page in pool.tail("logs", min_severity="ERROR", cursor=load_cursor()):
                for record in page:
                    handle(record)
                save_cursor(page.next)

        Args:
            signal: ``"spans"``, ``"traces"``, ``"logs"`` or ``"data_points"``.
            filters: `SpanFilters`, `TraceFilters`, `LogFilters` or `DataPointFilters`, or their
                fields as keywords. ``limit`` is the number of rows of the first page. The tail ends
                when ``end_time`` has passed.
            cursor: the `Page.next` of an earlier page; without it, the tail begins with the newest
                rows.
            payload: load all JSON columns of logs and spans.
            poll_interval: the longest time between two polls, in seconds or as a timedelta.
            timeout: end after so many seconds without a row. None waits for ever.
            on_error: is called with each error after which the tail tries again; by default, a
                warning is logged.

        Raises:
            ValidationError: an argument is invalid, or the cursor belongs to another query.
            StorageError: an error that trying again does not help against, or the last poll failed,
                when iterating.
        """
        from observatory_storage.streams.following import follow

        return follow(
            self,
            signal,
            filters,
            fields,
            cursor=cursor,
            payload=payload,
            poll_interval=poll_interval,
            timeout=timeout,
            on_error=on_error,
        )

    def watch(
        self,
        hook: Callable[[ThresholdPassed], object],
        *thresholds: Threshold,
        name: str | None = None,
    ) -> Watch:
        """Call a hook when what this process writes passes a bound.

        A thread compares after each commit: durations of the written spans, the stored cost of
        their traces, and the spend of their users, which is read from rollups and from the spans
        that these do not cover. What is committed within 0.1 seconds is compared together. The hook
        is called once for a trace and for a span, and once for a user within the window. If Redis
        is configured, this holds for all processes together that watch the same bound under the
        same name, otherwise for each of them. Several watches of one process are each told. Costs
        that change later, for example by `settle_usage`, are compared with the next commit of the
        trace or the user.

        An error of the hook is logged and ignored. While the database does not answer, costs are
        compared later.

        Example::

            def warn(passed):
                print(passed.subject, passed.value)

            with pool.watch(warn, TraceCost(1), UserSpend(50, window=timedelta(days=1))):
                serve()

        Args:
            hook: is called with each `ThresholdPassed`, in the thread.
            thresholds: `TraceCost`, `SpanDuration` and `UserSpend`.
            name: what the watch is called in all processes; by default, the module and the
                qualified name of the hook. Give it where hooks of different services have the
                same, as those of ``__main__`` and lambdas may.

        Raises:
            ValidationError: there is no threshold, one is of another type, the name is empty, or
                the hook cannot be called.
            PoolError: the pool is closed.
        """
        from observatory_storage.streams.thresholds import checked_thresholds
        from observatory_storage.streams.watcher import Watch

        self._require_open()
        return Watch(self, hook, checked_thresholds(thresholds), name)

    def stream_stats(self) -> StreamStats:
        """Count the rows that this process has published, and those that it could not publish."""
        if self._publisher is None:
            return StreamStats(0, 0, 0, 0, is_connected=False)
        return self._publisher.stats()
