"""By what spans can be grouped: columns, and buckets of time, in UTC or by a place's calendar."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from sqlalchemy import ColumnElement, DateTime, Double, Label, cast, func, literal
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.types import Interval

from observatory_storage.errors import ValidationError
from observatory_storage.models import TraceSpan
from observatory_storage.repositories.reading import validation
from observatory_storage.repositories.reading.time_buckets import bucket_start

__all__ = ["DURATION_US", "SPAN_GROUPS", "bucket_column", "group_columns"]

SPAN_GROUPS: Final[Mapping[str, InstrumentedAttribute[Any]]] = {
    "service_name": TraceSpan.service_name,
    "operation": TraceSpan.name,
    "kind": TraceSpan.kind,
    "status": TraceSpan.status,
    "provider": TraceSpan.provider,
    "model": TraceSpan.model,
    "environment": TraceSpan.environment,
    "user_id": TraceSpan.user_id,
    "session_id": TraceSpan.session_id,
}
# With its nanoseconds; NULL while the span has not ended.
DURATION_US: Final = cast(TraceSpan.duration_us, Double) + cast(
    TraceSpan.duration_ns, Double
) / literal(1000.0, Double)

_DAY: Final = timedelta(days=1)
# A Monday, as with the buckets of UTC.
_LOCAL_ORIGIN: Final = datetime(1970, 1, 5)  # noqa: DTZ001 - of whatever place


def group_columns(
    group_by: object, known: Mapping[str, InstrumentedAttribute[Any]]
) -> dict[str, Label[Any]]:
    """The columns of a ``group_by`` by their names.

    Raises:
        ValidationError: it is no sequence of names, or one is not known.
    """
    names = validation.names("group_by", group_by)
    for name in names:
        validation.choice("group_by", name, known)
    return {name: known[name].label(f"by_{name}") for name in names}


def bucket_column(
    moment: ColumnElement[Any] | InstrumentedAttribute[Any],
    bucket_size_secs: float | None,
    time_zone: str | None = None,
) -> Label[Any]:
    """Where the bucket begins that a moment lies in, as ``bucket``; NULL without buckets.

    Args:
        time_zone: by whose calendar days begin, as "Asia/Tokyo".

    Raises:
        ValidationError: the bucket is no width, or not of whole days in a time zone; there is no
            such time zone.
    """
    zone = _time_zone(time_zone)
    if bucket_size_secs is None:
        if zone is not None:
            raise ValidationError("time_zone", time_zone, "needs bucket_size_secs")
        return literal(None, DateTime(timezone=True)).label("bucket")
    width = validation.bucket("bucket_size_secs", bucket_size_secs)
    if zone is None:
        return bucket_start(width, moment).label("bucket")
    if width % _DAY:
        # The hour that is there twice when clocks are set back would become one.
        rule = "must be whole days (86400 seconds) in a time zone"
        raise ValidationError("bucket_size_secs", bucket_size_secs, rule)
    local = func.date_bin(
        literal(width, Interval()),
        func.timezone(zone, moment),
        literal(_LOCAL_ORIGIN, DateTime()),
    )
    return func.timezone(zone, local, type_=DateTime(timezone=True)).label("bucket")


def _time_zone(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, ZoneInfo) and value.key is not None:
        return value.key
    if not isinstance(value, str):
        raise ValidationError("time_zone", value, "must be a name, as 'Asia/Tokyo'")
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        # Where Python has no time zones, the server tells whether it knows this one.
        if available_timezones() or not value.isascii():
            raise ValidationError("time_zone", value, "is not the name of a time zone") from None
    return value
