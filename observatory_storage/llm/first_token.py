"""When the first token of a response arrived, in milliseconds after the start of its span."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from observatory_storage.llm.readers import read_text

__all__ = ["COMPLETION_START", "fitting", "is_first_token", "milliseconds_until"]

# The time of the first token, as text in ISO 8601.
COMPLETION_START: Final = "langfuse.observation.completion_start_time"

_EVENTS: Final = frozenset(
    {
        "First Token Stream Event",
        "gen_ai.content.completion.chunk",
        "llm.content.completion.chunk",
        "gen_ai.first_token",
        "llm.first_token",
        "first_token",
        "first token",
        "ai.stream.firstChunk",
        "mlflow.chunk.item.0",
        "new_token",
    }
)
# The client's clock for durations and that of its spans may differ.
_SLACK_MS: Final = 1000.0
_SMALLER_UNITS: Final = (1e3, 1e6)


def is_first_token(event_name: object) -> bool:
    """Whether an event tells that a token, of which this is the first, has arrived."""
    return event_name in _EVENTS


def fitting(ttft_ms: float, duration_us: int | None) -> float | None:
    """A reported time to the first token, in the unit in which it fits into its span.

    Some instrumentations report milliseconds where others report seconds. A token cannot arrive
    after the end of the span: then the next smaller units are tried. None if none fits.
    """
    if duration_us is None or ttft_ms <= duration_us / 1000 + _SLACK_MS:
        return ttft_ms
    for unit in _SMALLER_UNITS:
        if ttft_ms / unit <= duration_us / 1000:
            return round(ttft_ms / unit, 6)
    return None


def milliseconds_until(
    moment: object, start_time: datetime, duration_us: int | None
) -> float | None:
    """The milliseconds from the start of a span until a moment within it, else None.

    Args:
        moment: an aware datetime, or text in ISO 8601.
        start_time: when the span started.
        duration_us: how long the span took; None if it is unknown.
    """
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(read_text(moment) or "")
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        return None
    try:
        passed = (moment - start_time).total_seconds() * 1000
    except (OverflowError, TypeError):
        return None
    longest = None if duration_us is None else duration_us / 1000
    return round(passed, 6) if passed >= 0 and (longest is None or passed <= longest) else None
