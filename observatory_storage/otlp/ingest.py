"""Ingests OTLP requests: decodes them, maps them to rows, checks the rows and commits them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, islice
from typing import Any, Final

from observatory_storage.errors import Rejected, StorageError, ValidationError
from observatory_storage.otlp.decode import decode
from observatory_storage.otlp.json_reader import as_json
from observatory_storage.otlp.logs import log_rows
from observatory_storage.otlp.metrics import MetricItems, metric_rows
from observatory_storage.otlp.resource_scope import Item
from observatory_storage.otlp.response import Encoding, response
from observatory_storage.otlp.signals import (
    LOG_SIGNAL,
    METRIC_SIGNAL,
    TRACE_SIGNAL,
    Signal,
    SignalName,
)
from observatory_storage.otlp.traces import span_rows
from observatory_storage.rows import PART, Row, prepare_all, prepare_many
from observatory_storage.serialization import Result
from observatory_storage.storing import Source, store
from observatory_storage.storing.row_stream import StreamOutcome, stream
from observatory_storage.tables import DATA_POINTS, LOGS, METRICS, SPANS, TableDefinition

__all__ = ["IngestResult", "ingest_logs", "ingest_metrics", "ingest_traces"]

# How many errors a response tells. A request may have thousands, mostly of one kind.
_TOLD_ERRORS: Final = 5
# A request is one transaction, unless it is so large that it would block others for long.
_ROWS_A_TRANSACTION: Final = 10_000
_METRIC_ID: Final = METRICS.position["id"]


@dataclass(frozen=True, slots=True)
class IngestResult(Result):
    """The result of ingesting one OTLP request.

    Attributes:
        accepted: the number of spans, data points or log records that are stored.
        rejected: the items that are not stored, each as a `Rejected` with its position in the
            request, the item as it was in OTLP, and the error. A refused metric that has no data
            points counts as one item.
        repaired: the number of values that were changed because PostgreSQL cannot store them.
        duplicates: the number of accepted items that were stored already.
        signal: ``"traces"``, ``"metrics"`` or ``"logs"``.
    """

    accepted: int
    rejected: list[Rejected] = field(default_factory=list)
    repaired: int = 0
    duplicates: int = 0
    signal: SignalName = "traces"

    def to_otlp(self, encoding: Encoding = "json") -> bytes:
        """The body of the response for the sender, as OTLP over HTTP and gRPC define it.

        If all items are stored as they were sent, the response is that of full success, which is
        ``{}`` in JSON and empty in protobuf. Otherwise it has a ``partialSuccess`` with the number
        of refused items and a message. A sender does not send refused items again.

        Args:
            encoding: ``"json"`` or ``"protobuf"``: the encoding of the request. Protobuf does not
                need the ``otel`` extra here.

        Raises:
            ValidationError: the encoding is another one.
        """
        return response(self.signal, encoding, len(self.rejected), self._message())

    def _message(self) -> str:
        parts = [str(refused.error) for refused in self.rejected[:_TOLD_ERRORS]]
        if len(self.rejected) > _TOLD_ERRORS:
            parts.append(f"{len(self.rejected) - _TOLD_ERRORS} more items are rejected")
        if self.repaired:
            parts.append(f"repaired {self.repaired} values with characters that cannot be stored")
        return "; ".join(parts)


def ingest_traces(pool: Source, payload: Any) -> IngestResult:
    """Store the spans of an OTLP request, and update their traces.

    The rows are committed when the function returns. Ingesting a request again changes nothing.

    Example, as a Flask view that receives OTLP over HTTP::

        @app.post("/v1/traces")
        def traces():
            result = ingest_traces(pool, request.get_data())
            encoding = "json" if request.is_json else "protobuf"
            return Response(result.to_otlp(encoding), content_type=request.content_type)

    Args:
        pool: the pool to write to.
        payload: OTLP/JSON as text, bytes or parsed; OTLP in protobuf as bytes or as a message.

    Raises:
        ValidationError: the payload is not an OTLP request of traces. Nothing of it is stored.
        ConfigError: the payload is protobuf and the ``otel`` extra is not installed.
        StorageError: the database could not be written to. Ingesting again is safe.
    """
    return _ingest(pool, span_rows(decode(payload, TRACE_SIGNAL)), SPANS, TRACE_SIGNAL)


def ingest_logs(pool: Source, payload: Any) -> IngestResult:
    """Store the log records of an OTLP request.

    See `ingest_traces` for the arguments and the errors.
    """
    return _ingest(pool, log_rows(decode(payload, LOG_SIGNAL)), LOGS, LOG_SIGNAL)


def ingest_metrics(pool: Source, payload: Any) -> IngestResult:
    """Store the metrics of an OTLP request with their data points.

    See `ingest_traces` for the arguments and the errors.
    """
    # The whole request is read before anything is stored: an invalid request stores nothing.
    metrics = list(metric_rows(decode(payload, METRIC_SIGNAL)))
    # Metrics are stored first, so that no data point is ever without its metric.
    _, definitions = _stored(pool, [metric.definition for metric in metrics], METRICS)
    points: list[Item] = []
    rejected: list[Rejected] = []
    for metric, definition in zip(metrics, definitions, strict=True):
        if isinstance(definition, StorageError) and not metric.points:
            source = as_json(metric.definition.source)
            rejected.append(Rejected(len(points), source, definition))
        points += _points_of(metric, definition)
    result = _ingest(pool, points, DATA_POINTS, METRIC_SIGNAL)
    return replace(result, rejected=rejected + result.rejected)


def _points_of(metric: MetricItems, definition: Any) -> list[Item]:
    if isinstance(definition, StorageError):
        return [Item(point.source, None, definition) for point in metric.points]
    for point in metric.points:
        if point.row is not None:
            point.row["metric_id"] = definition.values[_METRIC_ID]
    return metric.points


def _ingest(
    pool: Source, mapped: Iterable[Item], table: TableDefinition, signal: Signal
) -> IngestResult:
    return _result(*_stored(pool, mapped, table), signal)


class _ItemFeed:
    """Maps the items of a request, and prepares their rows, while earlier ones are written."""

    def __init__(self, table: TableDefinition, mapped: Iterator[Item]) -> None:
        self.table = table
        self._mapped = mapped
        self.items = list(islice(mapped, PART + 1))

    def parts(self) -> Iterator[list[Row]]:
        """The rows of all items that are not refused.

        Raises:
            ValidationError: a row is not valid.
        """
        for start in count(0, PART):
            if start + PART > len(self.items):
                self.items += islice(self._mapped, start + PART - len(self.items))
            part = self.items[start : start + PART]
            if not part:
                return
            rows = [item.row for item in part if item.row is not None]
            if rows:
                yield prepare_all(self.table, rows)

    def written(self, pool: Source) -> bool:
        """Whether all rows could be written while they were prepared. Then all items are mapped."""
        # Few rows are prepared in no time, and need no savepoint that may fail.
        if len(self.items) <= PART or self.table is METRICS:
            return False
        try:
            done = stream(pool, self) is StreamOutcome.WRITTEN
        except ValidationError:
            done = False  # preparing them before they are written shows all that are not valid
        self.items += self._mapped
        return done


def _stored(
    pool: Source, mapped: Iterable[Item], table: TableDefinition
) -> tuple[list[Item], list[Row | StorageError | None]]:
    """The items; and for each the error for which it is not stored, its row, or None."""
    items: list[Item] = []
    outcomes: list[Any] = []
    rest = iter(mapped)
    while True:
        feed = _ItemFeed(table, islice(rest, _ROWS_A_TRANSACTION))
        if not feed.items:
            return items, outcomes
        written = feed.written(pool)
        outcomes += [item.error for item in feed.items]
        places = range(len(items), len(outcomes))
        items += feed.items
        if not written:
            mapped_places = [index for index in places if items[index].row is not None]
            _store_prepared(pool, table, items, mapped_places, outcomes)


def _store_prepared(
    pool: Source,
    table: TableDefinition,
    items: Sequence[Item],
    places: list[int],
    outcomes: list[Any],
) -> None:
    prepared, refused = prepare_many(table, [items[index].row for index in places])
    if refused is not None:
        for one in refused.rejected:
            outcomes[places[one.index]] = one.error
        places = [index for index in places if outcomes[index] is None]
    for index, row in zip(places, prepared, strict=True):
        outcomes[index] = row
    for rejected in store(pool, prepared).rejected:
        outcomes[places[rejected.index]] = rejected.error


def _result(items: Sequence[Item], outcomes: Sequence[Any], signal: Signal) -> IngestResult:
    rejected = [
        Rejected(index, as_json(item.source), outcome)
        for index, (item, outcome) in enumerate(zip(items, outcomes, strict=True))
        if isinstance(outcome, StorageError)
    ]
    return IngestResult(len(items) - len(rejected), rejected, signal=signal.name)
