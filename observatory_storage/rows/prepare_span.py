"""Spans with their events made ready to write; LLM columns come from the attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Context, Decimal
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

from observatory_storage import ids, jsonb
from observatory_storage.errors import ValidationError
from observatory_storage.llm import Course, facts
from observatory_storage.llm.event_facts import error_message
from observatory_storage.models import TraceEvent, TraceSpan
from observatory_storage.rows.consistent_sampling import sample_weight
from observatory_storage.rows.row import Row, as_mapping
from observatory_storage.rows.table_checks import CHECKS, EVENTS_OF_SPANS
from observatory_storage.rows.value_checks import MAX_INT64, Refused, cost
from observatory_storage.tables import EVENTS, SPAN_KEY_OF_EVENT, SPANS, Values
from observatory_storage.times import MICROSECOND

__all__ = [
    "SUMS",
    "USAGE",
    "duration",
    "encoded_details",
    "end_of",
    "events_of",
    "prepare_llm_span",
    "prepare_span",
    "source_of_cost",
    "total_of",
    "with_error_message",
]

# Adds any two costs exactly, whatever precision the caller's own context has.
_EXACT: Final = Context(prec=800, traps=[])

_NAME, _SCOPE, _STATUS, _START, _START_NS, _END, _END_NS, _DURATION, _DURATION_NS = SPANS.positions(
    *("name", "scope_name", "status", "start_time", "start_ns", "end_time", "end_ns"),
    *("duration_us", "duration_ns"),
)
_COST, _COST_SOURCE, _REPORTED_COST_SOURCE = SPANS.positions(
    "total_cost_usd", "cost_source", "reported_cost_source"
)
_TRACE_ID, _OTLP, _WEIGHT = SPANS.positions("trace_id", "otlp", "sample_weight")
_SPAN_KEY: Final = SPANS.positions("trace_id", "span_id", "start_time", "start_ns")
_SPAN_KEY_OF_EVENT: Final = EVENTS.positions(*SPAN_KEY_OF_EVENT)
_POSITION: Final = EVENTS.position["position"]
_MESSAGE: Final = SPANS.position["status_message"]
_JSON: Final = tuple(
    (SPANS.position[name], name) for name in sorted(SPANS.json_columns.intersection(SPANS.position))
)
_DEFAULTS: Final = CHECKS[SPANS.name].defaults
# Values of these types are written as they are; those of subclasses are converted first.
_PLAIN_TYPES: Final = frozenset({str, int, float, Decimal, UUID, datetime, dict, list, type(None)})


def prepare_span(
    row: TraceSpan | Mapping[str, Any], *, has_facts: bool = False, trace_text: str | None = None
) -> Row:
    """A row of `trace_spans` with those of its events.

    Args:
        row: the span.
        has_facts: whether its LLM columns are what its attributes say already.
        trace_text: its trace id as text, where its ``trace_id`` is not that text.

    Raises:
        ValidationError: names the field, its value and the rule.
    """
    read = row if type(row) is dict else as_mapping(row, TraceSpan)
    if read.get("reported_usage") is not None:
        read = _with_reported_usage(read)
    original = with_error_message(read)
    values, repairs, given = CHECKS[SPANS.name].prepare(original)
    if values[_END] is not None:
        values[_DURATION], values[_DURATION_NS] = duration(
            values[_START], values[_START_NS], values[_END], values[_END_NS]
        )
    elif values[_DURATION] is not None:  # a span with a duration has ended
        values[_END], values[_END_NS] = end_of(
            values[_START], values[_START_NS], values[_DURATION], values[_DURATION_NS]
        )
    if not has_facts or given is not original:
        _fill_llm_columns(values, given)
    values[_COST_SOURCE] = source_of_cost(values[_COST], values[_COST_SOURCE])
    values[_REPORTED_COST_SOURCE] = None
    if values[_WEIGHT] is None and values[_OTLP] is not None:
        values[_WEIGHT] = sample_weight(values[_OTLP], values[_TRACE_ID].int)
    events = given.get("events")
    if events is not None:
        events, of_events = events_of(events, values)
        repairs += of_events
    text = ids.trace_text(given["trace_id"]) if trace_text is None else trace_text
    return Row(SPANS.name, tuple(values), events, text, repairs)


def prepare_llm_span(span: TraceSpan, trace_text: str) -> Row:
    """The row of a span that `LlmSpan.to_span` has just made: its values are checked already.

    Args:
        span: the span.
        trace_text: its trace id as text.

    Raises:
        ValidationError: as `prepare_span` does.
    """
    given = span.__dict__
    values: list[Any] = list(map(given.get, SPANS.columns))
    if (
        given.get("events")
        or not _PLAIN_TYPES.issuperset(map(type, values))
        or (values[_STATUS] == "error" and not values[_MESSAGE])
        or not all(map(_is_cost, _costs_of(values)))
    ):
        return prepare_span(span, has_facts=True, trace_text=trace_text)
    values[_COST_SOURCE] = source_of_cost(values[_COST], None)
    for position, column in _JSON:
        value = values[position]
        if not value:
            values[position] = _DEFAULTS[position]
            continue
        values[position], repairs, plain = jsonb.convert(value, column)
        if repairs or plain is not value:
            return prepare_span(span, has_facts=True, trace_text=trace_text)
    return Row(SPANS.name, tuple(values), (), trace_text)


def _is_cost(value: Any) -> bool:
    """Whether the column takes the amount. Those of calls may have more digits than it allows."""
    try:
        return value is None or cost(value) is value
    except Refused:
        return False


def _with_reported_usage(given: Mapping[str, Any]) -> dict[str, Any]:
    """A span that was read, with its columns of usage as it reports them.

    Where its usage counts is decided again among the spans with which it is written.
    """
    reported = given["reported_usage"]
    if not isinstance(reported, Mapping) or not reported.keys() <= _REPORTED.keys():
        raise ValidationError(
            "reported_usage", reported, f"must be an object with any of {', '.join(_REPORTED)}"
        )
    source = {"cost_source": given.get("reported_cost_source"), "reported_cost_source": None}
    return {**given, **_REPORTED, **reported, **source, "reported_usage": None}


def with_error_message(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row with the message that its attributes or events tell, if it is an error without one.

    Its `otlp` notes that the status had none, so that the span is exported as it was sent.
    """
    if given.get("status") != "error" or given.get("status_message"):
        return given
    otlp = given.get("otlp")
    message = error_message(given.get("attributes"), given.get("events"))
    if message is None or not (otlp is None or isinstance(otlp, Mapping)):
        return given
    return {**given, "status_message": message, "otlp": {**(otlp or {}), "status_message": None}}


def source_of_cost(cost: Decimal | None, given: str | None) -> str | None:
    """Where the cost of a span comes from: a span that is written tells it, or was read before."""
    if cost is None:
        return None
    return "told" if given is None else given


def encoded_details(details: Mapping[str, int] | None) -> bytes | None:
    """The value of `token_details` as it is written."""
    return None if details is None else jsonb.encode(details, "token_details")[0]


def events_of(events: Sequence[Any], span: Sequence[Any]) -> tuple[tuple[Values, ...], int]:
    """The values of a prepared span's events, and how many values in their JSON were repaired.

    Raises:
        ValidationError: names the event by its index.
    """
    prepared = []
    positions = set()
    repairs = 0
    for index, event in enumerate(events):
        try:
            given = event if type(event) is dict else as_mapping(event, TraceEvent)
            values, repaired, _ = EVENTS_OF_SPANS.prepare(given)
        except ValidationError as error:
            place = f"events[{index}].{error.field}".removesuffix(".row")
            raise ValidationError(place, error.value, error.rule) from None
        repairs += repaired
        for of_event, of_span in zip(_SPAN_KEY_OF_EVENT, _SPAN_KEY, strict=True):
            values[of_event] = span[of_span]
        if values[_POSITION] is None:
            values[_POSITION] = index
        positions.add(values[_POSITION])
        if len(positions) == index:
            rule = "must not be that of another event"
            raise ValidationError(f"events[{index}].position", values[_POSITION], rule)
        prepared.append(tuple(values))
    return tuple(prepared), repairs


def duration(start: datetime, start_ns: int, end: datetime, end_ns: int) -> tuple[int, int]:
    """The microseconds from start to end, and the nanoseconds beyond them."""
    nanoseconds = (end - start) // MICROSECOND * 1000 + end_ns - start_ns
    if nanoseconds < 0:
        raise ValidationError("end_time", end, f"must not be before start_time={start}")
    return divmod(nanoseconds, 1000)


def end_of(start: datetime, start_ns: int, took: int, took_ns: int) -> tuple[datetime, int]:
    """The end of what took so long: the time, and the nanoseconds beyond its microseconds."""
    microseconds, nanoseconds = divmod(start_ns + took_ns, 1000)
    try:
        return start + (took + microseconds) * MICROSECOND, nanoseconds
    except OverflowError:
        raise ValidationError("duration_us", took, f"ends after the year 9999: {start}") from None


def _fill_llm_columns(values: list[Any], given: Mapping[str, Any]) -> None:
    found = facts(
        given.get("attributes") or {},
        name=values[_NAME],
        scope_name=values[_SCOPE],
        resource_attributes=given.get("resource_attributes") or {},
        course=Course(
            values[_START],
            values[_DURATION],
            values[_STATUS] == "error",
            given.get("events") or (),
        ),
    )
    if "token_details" in found:
        found["token_details"] = encoded_details(found["token_details"])
    if not USAGE.isdisjoint(given):
        for columns, add in SUMS:
            own = [values[position] for position in SPANS.positions(*columns)]
            found[columns[-1]] = total_of(own, [found.get(column) for column in columns], add)
    positions = SPANS.position
    for column, value in found.items():
        position = positions[column]
        if values[position] is None:
            values[position] = value


def total_of(own: Sequence[Any], found: Sequence[Any], add: Callable[[Any, Any], Any]) -> Any:
    """The total of a span that gives usage: its own, the attributes', or the sum of its sides.

    Args:
        own: the usage that the span gives: of the prompt, of the completion, and the total.
        found: the same of its attributes.
        add: adds two sides.
    """
    own_prompt, own_completion, own_total = own
    prompt, completion, total = found
    if own_total is not None:
        return own_total
    if own_prompt is not None or own_completion is not None:
        # A total that only sums the attributes' sides is not the total of the span's own sides.
        if total is not None and total != _sum(prompt, completion, add):
            return total
        prompt = prompt if own_prompt is None else own_prompt
        completion = completion if own_completion is None else own_completion
    elif total is not None:
        return total
    return _sum(prompt, completion, add)


def _sum(prompt: Any, completion: Any, add: Callable[[Any, Any], Any]) -> Any:
    """The sum of the sides that are known: zero is not unknown."""
    if prompt is None or completion is None:
        return completion if prompt is None else prompt
    return add(prompt, completion)


def _tokens(prompt: int, completion: int) -> int | None:
    tokens = prompt + completion
    return tokens if tokens <= MAX_INT64 else None


# What is summed up: the columns of the sides and of their total, and how to add sides.
SUMS: Final[tuple[tuple[tuple[str, str, str], Callable[[Any, Any], Any]], ...]] = (
    (("prompt_tokens", "completion_tokens", "total_tokens"), _tokens),
    (("prompt_cost_usd", "completion_cost_usd", "total_cost_usd"), _EXACT.add),
)
USAGE: Final = frozenset(column for columns, _ in SUMS for column in columns)
_costs_of = itemgetter(*SPANS.positions(*SUMS[1][0]))
_REPORTED: Final = dict.fromkeys(
    (*(column for columns, _ in SUMS for column in columns), "token_details")
)
