"""The questions that are asked most, and what of the populated database may answer each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from observatory_storage import UnitOfWork
from observatory_storage.repositories import (
    LogFilters,
    MetricFilters,
    Not,
    OneOf,
    Prefix,
    SpanFilters,
    TraceFilters,
)
from tests.repositories.populated import (
    DAYS,
    FIRST,
    RARE_MODEL,
    RARE_SESSION,
    RARE_USER,
    TRACE,
    partition,
)
from tests.repositories.samples import DAY, SECOND, trace_key

# One of those with few spans: for the other ones the newest rows are as near.
SERVICE = "service5"
OPERATION = "operation3"
KEY = trace_key(TRACE + 1)

THAT_DAY = range(3, 4)
NEWEST = range(DAYS - 1, DAYS)
EVERY_DAY = range(DAYS)
START_TIME, END_TIME = FIRST + 3 * DAY, FIRST + 4 * DAY
WITHIN: dict[str, Any] = {"start_time": START_TIME, "end_time": END_TIME}
A_MINUTE: dict[str, Any] = {"start_time": START_TIME, "end_time": START_TIME + 60 * SECOND}


@dataclass(frozen=True)
class Hot:
    """A question, what answers it, and how far it may reach.

    Attributes:
        indexes: each must be read; by how their names begin.
        days: the days whose partitions may be read, for each partitioned table.
        rows: so many may be read in all.
    """

    name: str
    ask: Callable[[UnitOfWork], object]
    indexes: set[str]
    days: dict[str, range]
    rows: int

    def __str__(self) -> str:
        return self.name


def of_partition(table: str, purpose: str) -> str:
    """How the name of an index begins that the partition of that day got when it closed."""
    return f"ix_{partition(table, THAT_DAY[0])}_{purpose}_"


def spans_by(column: str, value: str) -> Callable[[UnitOfWork], object]:
    asked: dict[str, Any] = {column: value}
    filters = SpanFilters(**asked, limit=5)
    return lambda uow: uow.traces.list_spans(filters)


def traces_by(column: str, value: str) -> Callable[[UnitOfWork], object]:
    asked: dict[str, Any] = {column: value}
    filters = TraceFilters(**asked, limit=5)
    return lambda uow: uow.traces.list(filters)


def spans_of(days: range) -> dict[str, range]:
    return {"trace_spans": days, "trace_events": days}


HOT = (
    Hot("recent traces", lambda uow: uow.traces.list(), {"ix_traces_start_time"}, {}, 60),
    Hot(
        "recent traces of a service",
        lambda uow: uow.traces.list(TraceFilters(service_name="service0")),
        {"ix_traces_start_time", "pk_trace_spans"},
        spans_of(NEWEST),
        2_000,
    ),
    Hot(
        "traces of a service in a time",
        lambda uow: uow.traces.list(TraceFilters(service_name="service0", **WITHIN)),
        {"ix_traces_start_time", "pk_trace_spans"},
        spans_of(THAT_DAY),
        2_000,
    ),
    Hot(
        "traces of a service that has none",
        lambda uow: uow.traces.list(TraceFilters(service_name="nobody", **WITHIN)),
        {"ix_traces_start_time", "ix_traces_without_spans"},
        spans_of(THAT_DAY),
        12_000,
    ),
    Hot("a trace", lambda uow: uow.traces.get_by_trace_id(KEY), {"pk_traces"}, {}, 1),
    Hot(
        "the spans of a trace with their events",
        lambda uow: uow.traces.get_spans(KEY, with_events=True),
        {"pk_traces", "pk_trace_spans", "pk_trace_events"},
        spans_of(THAT_DAY),
        20,
    ),
    Hot(
        "the tree of a trace",
        lambda uow: uow.traces.get_tree(KEY),
        {"pk_traces", "pk_trace_spans"},
        spans_of(THAT_DAY),
        20,
    ),
    Hot(
        "the spans of a trace, listed",
        lambda uow: uow.traces.list_spans(SpanFilters(trace_id=KEY)),
        {"pk_traces", "pk_trace_spans"},
        spans_of(THAT_DAY),
        20,
    ),
    Hot(
        "spans of an operation in a time",
        lambda uow: uow.traces.list_spans(
            SpanFilters(service_name=SERVICE, operation=OPERATION, **WITHIN, limit=5)
        ),
        {"ix_trace_spans_operation"},
        spans_of(THAT_DAY),
        60,
    ),
    Hot(
        "traces of an operation in a time",
        lambda uow: uow.traces.list(
            TraceFilters(service_name=SERVICE, operation=OPERATION, **WITHIN, limit=5)
        ),
        {"ix_trace_spans_", "pk_traces"},
        spans_of(THAT_DAY),
        500,
    ),
    Hot(
        "errors of a service",
        lambda uow: uow.traces.list_spans(SpanFilters(service_name=SERVICE, status="error")),
        {"ix_trace_spans_errors"},
        spans_of(EVERY_DAY),
        60,
    ),
    Hot(
        "failed traces of a service",
        lambda uow: uow.traces.list(TraceFilters(service_name="service0", status="error")),
        {"ix_trace_spans_errors", "pk_traces"},
        spans_of(EVERY_DAY),
        5_000,
    ),
    Hot(
        "slow traces in a time",
        lambda uow: uow.traces.list(TraceFilters(min_duration_us=500_000, **WITHIN)),
        {"ix_traces_start_time", "pk_trace_spans"},
        spans_of(THAT_DAY),
        1_000,
    ),
    *(
        Hot(
            f"spans by {column}",
            spans_by(column, value),
            {f"ix_trace_spans_{column}"},
            spans_of(EVERY_DAY),
            60,
        )
        for column, value in (
            ("model", RARE_MODEL),
            ("user_id", RARE_USER),
            ("session_id", RARE_SESSION),
        )
    ),
    *(
        Hot(
            f"traces by {column}",
            traces_by(column, value),
            {f"ix_trace_spans_{column}", "pk_traces"},
            spans_of(EVERY_DAY),
            500,
        )
        for column, value in (("user_id", RARE_USER), ("session_id", RARE_SESSION))
    ),
    Hot(
        "traces by a rare model in a time",
        lambda uow: uow.traces.list(TraceFilters(model=RARE_MODEL, **WITHIN)),
        {"ix_trace_spans_model"},
        spans_of(THAT_DAY),
        500,
    ),
    Hot(
        "traces by a frequent model",
        lambda uow: uow.traces.list(TraceFilters(model="model0")),
        {"ix_traces_start_time"},
        spans_of(EVERY_DAY),
        7_000,
    ),
    Hot(
        "spans by a rare attribute in a closed day",
        lambda uow: uow.traces.list_spans(SpanFilters(attributes={"key": 77}, **WITHIN)),
        {of_partition("trace_spans", "attributes"), of_partition("trace_events", "attributes")},
        spans_of(THAT_DAY),
        7_000,
    ),
    Hot(
        "traces by a rare attribute in a closed day",
        lambda uow: uow.traces.list(TraceFilters(attributes={"key": 77}, **WITHIN)),
        {of_partition("trace_spans", "attributes"), of_partition("trace_events", "attributes")},
        spans_of(THAT_DAY),
        7_000,
    ),
    Hot(
        "words of a prompt in a closed day",
        lambda uow: uow.traces.search_text("word7 word8", SpanFilters(**WITHIN)),
        {of_partition("trace_spans", "content"), of_partition("trace_events", "content")},
        # A log record that names a span is up to an hour older or a day newer than its start.
        {**spans_of(THAT_DAY), "logs": range(THAT_DAY[0] - 1, THAT_DAY[0] + 2)},
        3_000,
    ),
    Hot(
        "traces of several users",
        lambda uow: uow.traces.list(TraceFilters(user_id=[RARE_USER, "user78"])),
        {"ix_trace_spans_user_id", "pk_traces"},
        spans_of(EVERY_DAY),
        500,
    ),
    Hot(
        "traces of sessions by their prefix",
        lambda uow: uow.traces.list(TraceFilters(session_id=Prefix(RARE_SESSION))),
        {"ix_trace_spans_session_id", "pk_traces"},
        spans_of(EVERY_DAY),
        500,
    ),
    Hot(
        "traces without an error",
        lambda uow: uow.traces.list(TraceFilters(status=Not("error"))),
        {"ix_traces_start_time", "pk_trace_spans"},
        spans_of(NEWEST),
        2_000,
    ),
    Hot(
        "spans of several users in a time",
        lambda uow: uow.traces.list_spans(SpanFilters(user_id=[RARE_USER, "user78"], **WITHIN)),
        {"ix_trace_spans_user_id"},
        spans_of(THAT_DAY),
        60,
    ),
    Hot(
        "spans by the prefix of a user in a time",
        lambda uow: uow.traces.list_spans(SpanFilters(user_id=Prefix(RARE_USER), **WITHIN)),
        {"ix_trace_spans_user_id"},
        spans_of(THAT_DAY),
        60,
    ),
    Hot(
        "root spans",
        lambda uow: uow.traces.list_spans(SpanFilters(root=True)),
        {"ix_trace_spans_start_time"},
        spans_of(NEWEST),
        1_000,
    ),
    Hot(
        "spans that ended in a time",
        lambda uow: uow.traces.list_spans(SpanFilters(ended_after=START_TIME, **WITHIN)),
        {"ix_trace_spans_start_time"},
        spans_of(THAT_DAY),
        60,
    ),
    Hot(
        "spans by one of several rare values of an attribute in a closed day",
        lambda uow: uow.traces.list_spans(SpanFilters(attributes={"key": OneOf(77, 78)}, **WITHIN)),
        {of_partition("trace_spans", "attributes"), of_partition("trace_events", "attributes")},
        spans_of(THAT_DAY),
        7_000,
    ),
    Hot(
        "the slowest traces in a time",
        lambda uow: uow.traces.list(order_by="-duration_us", **A_MINUTE),
        {"ix_traces_start_time"},
        {},
        110,
    ),
    Hot(
        "the slowest traces of a service in a time",
        lambda uow: uow.traces.list(service_name="service0", order_by="-duration_us", **WITHIN),
        {"ix_traces_start_time", "pk_trace_spans"},
        spans_of(THAT_DAY),
        3_000,
    ),
    Hot(
        "the dearest traces of a user in a time",
        lambda uow: uow.traces.list(user_id=RARE_USER, order_by="-total_cost_usd", **WITHIN),
        {"ix_trace_spans_user_id"},
        spans_of(THAT_DAY),
        100,
    ),
    Hot(
        "services",
        lambda uow: uow.traces.services(),
        {"ix_trace_spans_kind"},
        spans_of(EVERY_DAY),
        500,
    ),
    Hot(
        "operations of a service",
        lambda uow: uow.traces.operations(SERVICE),
        {"ix_trace_spans_kind"},
        spans_of(EVERY_DAY),
        500,
    ),
    Hot("recent logs", lambda uow: uow.logs.list(), {"pk_logs"}, {"logs": NEWEST}, 60),
    Hot(
        "logs of a service in a time",
        lambda uow: uow.logs.list(LogFilters(service_name=SERVICE, **WITHIN)),
        {"ix_logs_service_name"},
        {"logs": THAT_DAY},
        300,
    ),
    Hot(
        "logs of several services in a time",
        lambda uow: uow.logs.list(LogFilters(service_name=[SERVICE, "service6"], **WITHIN)),
        {"ix_logs_service_name"},
        {"logs": THAT_DAY},
        500,
    ),
    Hot(
        "logs of several traces",
        lambda uow: uow.logs.list(LogFilters(trace_id=[KEY, trace_key(TRACE + 2)])),
        {"ix_logs_trace_id"},
        {"logs": EVERY_DAY},
        40,
    ),
    Hot(
        "errors in the logs of a service",
        lambda uow: uow.logs.list(LogFilters(service_name=SERVICE, min_severity="ERROR")),
        {"ix_logs_errors"},
        {"logs": EVERY_DAY},
        120,
    ),
    Hot(
        "logs of a trace",
        lambda uow: uow.logs.get_by_trace(KEY),
        {"ix_logs_trace_id"},
        {"logs": EVERY_DAY},
        20,
    ),
    Hot(
        "logs with a rare word",
        lambda uow: uow.logs.search_text("unheard", LogFilters(**WITHIN)),
        {"ix_logs_body"},
        {"logs": THAT_DAY},
        200,
    ),
    Hot(
        "logs with a frequent word",
        lambda uow: uow.logs.search_text("word3", LogFilters(**WITHIN)),
        {"ix_logs_body"},
        {"logs": THAT_DAY},
        1_000,
    ),
    Hot(
        "logs as they come",
        lambda uow: uow.logs.tail(uow.logs.tail().next),
        {"pk_logs"},
        {"logs": NEWEST},
        200,
    ),
    Hot(
        "metrics of a name",
        lambda uow: uow.metrics.list(MetricFilters(name="metric1")),
        set(),
        {},
        20,
    ),
)
