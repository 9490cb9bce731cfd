"""Queries for the cost and latency of spans, their users and their errors."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, Literal, TypeVar

from sqlalchemy.orm import Session

from observatory_storage.arrow import ResultList, shape_of_results
from observatory_storage.repositories.metrics import results
from observatory_storage.repositories.metrics.costs import cost_summaries
from observatory_storage.repositories.metrics.error_summaries import error_summaries
from observatory_storage.repositories.metrics.latencies import latency_percentiles
from observatory_storage.repositories.metrics.unpriced import unpriced_models
from observatory_storage.repositories.metrics.user_usage import active_users, user_usage
from observatory_storage.repositories.reading import rollup_pieces, time_buckets, validation
from observatory_storage.repositories.reading.cached_results import (
    Question,
    cached_result,
    list_of,
)
from observatory_storage.repositories.reading.operators import Exists, TextFilter
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.traces.dependencies import spans_of
from observatory_storage.repositories.traces.filters import SpanFilters

__all__ = ["SpanMetrics"]

T = TypeVar("T")
_ANY: Final = Exists()


class SpanMetrics:
    """The methods of `MetricRepository` for the cost and latency of spans."""

    def __init__(self, session: Session) -> None:
        self._reader = Reader(session)

    def get_cost_summary(
        self,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        *,
        group_by: str | Sequence[str] = ("provider", "model"),
        bucket_size_secs: time_buckets.BucketSize | None = None,
        time_zone: str | None = None,
        fill: str | None = None,
        limit: int | None = None,
        service_name: TextFilter | None = None,
        operation: TextFilter | None = None,
        provider: TextFilter | None = None,
        model: TextFilter | None = None,
        user_id: TextFilter | None = None,
        session_id: TextFilter | None = None,
        environment: TextFilter | None = None,
        gen_ai_operation: TextFilter | None = None,
        response_model: TextFilter | None = None,
        agent_name: TextFilter | None = None,
        prompt_name: TextFilter | None = None,
        source: Literal["auto", "raw"] = "auto",
    ) -> ResultList[results.CostSummary]:
        """Sum tokens and cost of the spans that start in [start_time, end_time), by group.

        Without a bound the range is open on that side, and the query reads every partition there.

        Only spans that report tokens or a cost are counted. Groups are ordered by bucket, then by
        cost and tokens, highest first. Groups of unknown cost come last.

        Args:
            group_by: one or more of ``provider model service_name operation environment user_id
                session_id gen_ai_operation response_model agent_name prompt_name``. ``operation``
                is the name of the span. An empty sequence gives one total.
            bucket_size_secs: the width of a bucket of time, in seconds or as a timedelta; or
                ``"day"``, ``"week"`` (from Monday), ``"month"``, ``"quarter"`` or ``"year"``.
                Buckets of one width are aligned to Monday, 1970-01-05 UTC.
            time_zone: the time zone in which days begin, such as "Asia/Tokyo", in upper or lower
                case; UTC by default. With a time zone, buckets must be whole days or a unit of the
                calendar. A day on which the clocks change has 23 or 25 hours.
            fill: also return the buckets in which a group has no calls. Their counts are zero;
                their sums are None with ``"null"`` and zero with ``"zero"``. If ``start_time`` or
                ``end_time`` is missing, the range begins or ends with the first or last bucket that
                has calls. At most 200,000 rows are returned.
            limit: the maximum number of groups, in each bucket if there are buckets. The first
                groups are returned.
            service_name: only spans of this service, or those that an operator such as `Not`
                selects. The other columns filter in the same way.
            source: "auto" reads rollups where they have the groups and filters, and spans where
                rollups are missing or out of date: the result is the same. "raw" reads spans alone.

        Raises:
            ValidationError: the end is before the start, or a group, the bucket width, the time
                zone or the fill is invalid.
        """
        wanted = SpanFilters(
            service_name=service_name,
            operation=operation,
            start_time=start_time,
            end_time=end_time,
            provider=provider,
            model=model,
            user_id=user_id,
            session_id=session_id,
            environment=environment,
            gen_ai_operation=gen_ai_operation,
            response_model=response_model,
            agent_name=agent_name,
            prompt_name=prompt_name,
        )
        chosen = rollup_pieces.checked_source(source)
        most = None if limit is None else validation.limit("limit", limit)
        buckets = time_buckets.buckets_or_whole(bucket_size_secs, time_zone)
        found = self._about_spans(
            ("cost_summary", wanted, group_by, buckets, most, fill, chosen),
            results.CostSummary,
            wanted,
            lambda: rollup_pieces.steadily(
                self._reader,
                chosen,
                lambda source: cost_summaries(
                    self._reader, wanted, group_by, buckets, limit=most, fill=fill, source=source
                ),
            ),
        )
        return ResultList(
            found,
            shape_of_results(results.CostSummary, tuple(validation.names("group_by", group_by))),
        )

    def get_latency_percentiles(
        self,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        *,
        service_name: TextFilter | None = None,
        operation: TextFilter | None = None,
        bucket_size_secs: time_buckets.BucketSize = 3600,
        time_zone: str | None = None,
        source: Literal["auto", "raw"] = "auto",
    ) -> ResultList[results.LatencyPercentiles]:
        """Get percentiles of the durations of spans that start in [start_time, end_time).

        There is one result for each bucket of time. Spans that have not ended are left out. Buckets
        and ``time_zone`` are those of `get_cost_summary`. Without a bound the range is open on that
        side, and the query reads every partition there.

        Args:
            source: "auto" reads rollups where there are any. A percentile then differs from the
                exact one by at most 1.1 %. "raw" reads spans alone.

        Raises:
            ValidationError: the end is before the start, or the bucket width or the time zone is
                invalid.
        """
        wanted = SpanFilters(
            service_name=service_name,
            operation=operation,
            start_time=start_time,
            end_time=end_time,
        )
        buckets = time_buckets.buckets_of(bucket_size_secs, time_zone)
        chosen = rollup_pieces.checked_source(source)
        found = self._about_spans(
            ("latency", wanted, buckets, chosen),
            results.LatencyPercentiles,
            wanted,
            lambda: rollup_pieces.steadily(
                self._reader,
                chosen,
                lambda source: latency_percentiles(self._reader, wanted, buckets, source),
            ),
        )
        return ResultList(found, shape_of_results(results.LatencyPercentiles))

    def get_user_usage(
        self,
        user_id: TextFilter = _ANY,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        *,
        provider: TextFilter | None = None,
        model: TextFilter | None = None,
        bucket_size_secs: time_buckets.BucketSize | None = None,
        time_zone: str | None = None,
        limit: int | None = None,
        source: Literal["auto", "raw"] = "auto",
    ) -> ResultList[results.UserUsage]:
        """Get requests, errors, tokens and cost by user.

        Spans that start in [start_time, end_time) are counted.

        Users are ordered by bucket, then by cost and tokens, highest first.

        Args:
            user_id: one user, several, or those that an operator selects; all users by default.
            start_time: the first start.
            end_time: the first start that is left out.
            provider: only spans of this provider, or those that an operator selects.
            model: only spans of this model, or those that an operator selects.
            bucket_size_secs: the width of a bucket, as in `get_cost_summary`.
            time_zone: the time zone in which days begin.
            limit: the maximum number of users, in each bucket if there are buckets.
            source: "auto" reads rollups where there are any; "raw" reads spans alone.

        Example:
            >>> month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
            >>> spent = uow.metrics.get_user_usage("ada", start_time=month)
            >>> top = uow.metrics.get_user_usage(start_time=month, limit=10)

        Raises:
            ValidationError: the end is before the start, or another argument is invalid.
        """
        wanted = SpanFilters(
            user_id=user_id,
            start_time=start_time,
            end_time=end_time,
            provider=provider,
            model=model,
        )
        most = None if limit is None else validation.limit("limit", limit)
        buckets = time_buckets.buckets_or_whole(bucket_size_secs, time_zone)
        chosen = rollup_pieces.checked_source(source)
        found = self._about_spans(
            ("user_usage", wanted, buckets, most, chosen),
            results.UserUsage,
            wanted,
            lambda: rollup_pieces.steadily(
                self._reader,
                chosen,
                lambda source: user_usage(self._reader, wanted, buckets, limit=most, source=source),
            ),
        )
        return ResultList(found, shape_of_results(results.UserUsage))

    def get_active_users(
        self,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        *,
        bucket_size_secs: time_buckets.BucketSize = "day",
        time_zone: str | None = None,
        source: Literal["auto", "raw"] = "auto",
    ) -> ResultList[results.ActiveUsers]:
        """Count the different users and sessions by day, or by another bucket of time.

        The numbers are exact: rollups hold the ids of each hour and day, which are united. A user
        is active in the bucket in which one of the user's spans starts. Buckets without users and
        sessions are left out.

        Args:
            start_time: the first start.
            end_time: the first start that is left out.
            bucket_size_secs: the width of a bucket, as in `get_cost_summary`.
            time_zone: the time zone in which days begin.
            source: "auto" reads rollups where there are any; "raw" reads spans alone.

        Raises:
            ValidationError: the end is before the start, or another argument is invalid.
        """
        start, end = validation.times(start_time, end_time)
        buckets = time_buckets.buckets_of(bucket_size_secs, time_zone)
        chosen = rollup_pieces.checked_source(source)
        asked = SpanFilters(start_time=start, end_time=end)
        found = self._about_spans(
            ("active_users", asked, buckets, chosen),
            results.ActiveUsers,
            asked,
            lambda: rollup_pieces.steadily(
                self._reader,
                chosen,
                lambda source: active_users(self._reader, start, end, buckets, source),
            ),
        )
        return ResultList(found, shape_of_results(results.ActiveUsers))

    def get_error_summary(
        self,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        *,
        service_name: TextFilter | None = None,
        operation: TextFilter | None = None,
        error_type: TextFilter | None = None,
        user_id: TextFilter | None = None,
        session_id: TextFilter | None = None,
        limit: int = validation.DEFAULT_LIMIT,
        source: Literal["auto", "raw"] = "auto",
    ) -> ResultList[results.ErrorSummary]:
        """Summarise the failed spans that start in [start_time, end_time), most frequent first.

        There is one result for each service, operation and type of error: how often, when first and
        last, for how many users and sessions, and the last span as an example.

        Args:
            start_time: the first start.
            end_time: the first start that is left out.
            service_name: only spans of this service, or those that an operator selects.
            operation: only spans of this name, or those that an operator selects.
            error_type: only errors of this type, or those that an operator selects.
            user_id: only spans of this user, or those that an operator selects.
            session_id: only spans of this session, or those that an operator selects.
            limit: the maximum number of results.
            source: "auto" reads rollups where there are any; "raw" reads spans alone.

        Raises:
            ValidationError: the end is before the start, or another argument is invalid.
        """
        wanted = SpanFilters(
            service_name=service_name,
            operation=operation,
            start_time=start_time,
            end_time=end_time,
            error_type=error_type,
            user_id=user_id,
            session_id=session_id,
        )
        most = validation.limit("limit", limit)
        chosen = rollup_pieces.checked_source(source)
        found = self._about_spans(
            ("errors", wanted, most, chosen),
            results.ErrorSummary,
            wanted,
            lambda: rollup_pieces.steadily(
                self._reader,
                chosen,
                lambda source: error_summaries(self._reader, wanted, limit=most, source=source),
            ),
        )
        return ResultList(found, shape_of_results(results.ErrorSummary))

    def get_unpriced_models(
        self,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        *,
        limit: int = validation.BATCH_SIZE,
    ) -> ResultList[results.UnpricedModel]:
        """List the models whose calls have tokens and no cost, those with most tokens first.

        They are called in [start_time, end_time). Load prices of them with `load_prices`, and
        compute the costs with `recompute_costs`.

        Raises:
            ValidationError: the end is before the start, or the limit is invalid.
        """
        start, end = validation.times(start_time, end_time)
        found = unpriced_models(self._reader, start, end, validation.limit("limit", limit))
        return ResultList(found, shape_of_results(results.UnpricedModel))

    def _about_spans(
        self,
        question: tuple[Any, ...],
        kind: type[T],
        filters: SpanFilters,
        ask: Callable[[], builtins.list[T]],
    ) -> builtins.list[T]:
        asked = Question("statistics", question, spans_of(filters))
        return cached_result(self._reader, asked, list_of(kind), ask)
