"""Models whose calls have tokens and no cost."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Final

import sqlalchemy as sa

from observatory_storage.models import TraceSpan
from observatory_storage.pricing import STANDARD_TIERS, stored_tier
from observatory_storage.repositories.metrics.results import UnpricedModel
from observatory_storage.repositories.reading.filter_fields import within
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.reading.weights import weighted_count, weighted_integer_sum

__all__ = ["unpriced_models"]

_COMPUTED: Final = "computed"
_NONE: Final = Decimal(0)


def unpriced_models(
    reader: Reader, start: datetime | None, end: datetime | None, limit: int
) -> list[UnpricedModel]:
    """The models without a price; see `MetricRepository.get_unpriced_models`."""
    reported = TraceSpan.reported_usage["total_cost_usd"].astext
    tier = sa.func.lower(sa.func.trim(stored_tier(TraceSpan.attributes)))
    spans = (
        sa.select(
            TraceSpan.provider,
            TraceSpan.model,
            sa.case((tier.not_in(sorted(STANDARD_TIERS)), tier)).label("service_tier"),
            TraceSpan.total_tokens,
            TraceSpan.start_time,
            TraceSpan.sample_weight,
        )
        .where(
            *within(TraceSpan.start_time, start, end),
            TraceSpan.total_tokens > 0,
            # A cost of zero for tokens says that the sender did not know the price.
            sa.func.coalesce(TraceSpan.total_cost_usd, _NONE) == _NONE,
            TraceSpan.cost_source.is_distinct_from(_COMPUTED),
            # Its cost may be known, and count where the cost of several calls was told.
            TraceSpan.reported_cost_source.is_distinct_from(_COMPUTED),
            sa.func.coalesce(sa.cast(reported, sa.Numeric), _NONE) == _NONE,
        )
        .subquery("spans")
        .c
    )
    tokens = weighted_integer_sum(spans.total_tokens, spans.sample_weight)
    by = spans.provider, spans.model, spans.service_tier
    records = reader.records(
        sa.select(
            *by,
            weighted_count(spans.sample_weight).label("span_count"),
            tokens.label("total_tokens"),
            sa.func.min(spans.start_time).label("first_seen"),
            sa.func.max(spans.start_time).label("last_seen"),
        )
        .group_by(*by)
        .order_by(tokens.desc(), *by)
        .limit(limit)
    )
    return [UnpricedModel(**record) for record in records]
