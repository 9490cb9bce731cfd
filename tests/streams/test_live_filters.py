"""Filters choose the same rows of a stream as they choose of the stored rows."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_storage import (
    CopyWriter,
    DataPointFilters,
    Exists,
    LogFilters,
    MetricWriter,
    Not,
    OneOf,
    PayloadsConfig,
    PostgresConfig,
    Prefix,
    SpanFilters,
    StorageConfig,
    StoragePool,
    TraceFilters,
)
from observatory_storage.commits import Commit
from observatory_storage.repositories.reading.filter_fields import rules_of
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.streams.chunks import ChunkEncoder, decode_chunk
from observatory_storage.streams.live_filter import LiveFilter
from observatory_storage.streams.row_selection import FILTERS, Selection
from observatory_storage.streams.streamed_signals import STREAMED
from observatory_storage.tables import TABLES
from tests.repositories.samples import SECOND, START, trace_key
from tests.repositories.test_filter_pairs import (
    OF_LOGS,
    OF_SPANS,
    OF_TRACE,
    some_logs,
    some_spans,
)
from tests.servers import Server

Chosen = list[Any]
# Further records, whose severities have to be read from their texts.
TEXTS = ["error", "Warning", "ERROR2", "\u017fevere", "ERRÖR", "loud", None]
OF_POINTS: dict[str, list[Any]] = {
    "metric_id": [],  # known when the metrics are there
    "start_time": [START + 3 * SECOND],
    "end_time": [START + 3 * SECOND],
    "attributes": [{"k": 1}, {"k": Not("a")}],
}
VALUES: dict[str, dict[str, list[Any]]] = {
    "spans": OF_SPANS | OF_TRACE,
    "traces": OF_SPANS,
    "logs": OF_LOGS,
    "data_points": OF_POINTS,
}
RULES: dict[str, Mapping[str, Any]] = {name: rules_of(kind) for name, kind in FILTERS.items()}  # type: ignore[arg-type]  # classes can be hashed
OF_JSON = {"attributes", "text", "contains"}


class Published:
    """The rows of a store as a stream has them, and as they are stored."""

    def __init__(self, pool: StoragePool) -> None:
        self.pool = pool
        self.is_framed = pool.config.payloads.mode == "compressed"
        self.rows: dict[str, list[Any]] = {name: [] for name in TABLES}

    def on_commit(self, commit: Commit) -> None:
        for row in commit.rows:
            self.rows[row.table].append(row.values)

    def chosen(self, name: str, filters: Any) -> set[Any]:
        """The keys of the rows that the filters choose of the stream."""
        signal = STREAMED[name]
        encoder = ChunkEncoder(signal, "test", payloads=False)
        if name == "traces":
            ids = list({values[0]: None for values in self.rows["trace_spans"]})
            contents = [content for content, _ in encoder.traces(ids, 0)]
        else:
            contents = [content for content, _ in encoder.chunks(self.rows[signal.table.name], 0)]
        selection = Selection(self.pool, signal, filters)
        found = set()
        for content in contents:
            chunk = decode_chunk(signal, content)
            assert chunk is not None
            for _, row in selection.chosen(chunk.rows):
                found.add(tuple(getattr(row, column) for column in signal.table.key))
        return found

    def stored(self, name: str, filters: Any) -> set[Any]:
        """The keys of the stored rows that the filters choose."""
        table = STREAMED[name].table
        with self.pool.unit_of_work() as work:
            if name == "traces":
                return {(trace.id,) for trace in work.traces.iterate(filters)}
            if name == "spans":
                rows: Iterator[Any] = work.traces.iterate_spans(filters)
            elif name == "logs":
                rows = work.logs.iterate(filters)
            else:
                points = sa.select(table.model).where(*filters.conditions())
                rows = iter(Reader(work.session).entities(points))
            return {tuple(getattr(row, column) for column in table.key) for row in rows}


@pytest.fixture(scope="module", params=["inline", "compressed"])
def published(
    request: pytest.FixtureRequest, postgres_server: Server, migrated_template: str
) -> Iterator[Published]:
    with postgres_server.database(migrated_template) as url:
        payloads = PayloadsConfig(mode=request.param, threshold_bytes=0)
        config = StorageConfig(postgres=PostgresConfig.from_url(url), payloads=payloads)
        with StoragePool(config) as pool:
            found = Published(pool)
            pool.commits.add(found)
            logs = some_logs()
            for record, text in zip(logs, TEXTS * 3, strict=False):
                record |= {"severity_number": None, "severity_text": text}
            CopyWriter(pool).write_logs(logs)
            CopyWriter(pool).write_spans(some_spans())
            with MetricWriter(pool) as writer:
                for name in ("a", "b"):
                    metric = writer.write_metric({"name": name, "metric_type": "gauge"})
                    OF_POINTS["metric_id"] = [metric]
                    writer.write_data_points(
                        {
                            "metric_id": metric,
                            "timestamp": START + n * SECOND,
                            "value": n,
                            "attributes": {"k": n % 2} if n % 3 else {"k": "a"},
                        }
                        for n in range(9)
                    )
            yield found


def variants(name: str, field: str, values: list[Any]) -> Iterator[Any]:
    """The values of a field, and operators on them."""
    yield from values
    if not RULES[name][field].takes_operators:
        return
    yield OneOf(*values)
    yield Not(values[0])
    yield Exists()
    yield Not(Exists())
    yield Not(*values, "nothing") if field == "model" else Not(*values)
    if isinstance(values[0], str) and not field.endswith("_id") and field not in {"status", "kind"}:
        yield Prefix(values[0][:2])
        yield Not(Prefix(values[0][:1]))
        yield OneOf(Prefix(values[-1][:3]), values[0])


@pytest.mark.parametrize("name", FILTERS)
def test_every_field_chooses_what_it_chooses_of_stored_rows(
    published: Published, name: str
) -> None:
    given = dict(VALUES[name])
    assert given.keys() == RULES[name].keys() - {"limit"}
    chosen_any = set()
    if published.is_framed:  # only conditions on JSON are decided in another way
        given = {field: given[field] for field in OF_JSON & given.keys()}
    for field, values in given.items():
        for value in variants(name, field, values):
            more = {"start_time": START} if field == "contains" else {}
            filters: Any = FILTERS[name](**{**more, field: value})
            stored = published.stored(name, filters)
            assert published.chosen(name, filters) == stored, (field, value)
            chosen_any |= {field} if stored else set()
    assert chosen_any == given.keys()


@pytest.mark.parametrize("name", FILTERS)
def test_fields_together_choose_what_they_choose_of_stored_rows(
    published: Published, name: str
) -> None:
    chance = random.Random(11)
    sizes = set()
    for _ in range(24):
        fields = chance.sample(sorted(VALUES[name]), 2)
        given: Mapping[str, Any] = {
            field: chance.choice([*variants(name, field, VALUES[name][field])]) for field in fields
        }
        try:
            filters: Any = FILTERS[name](**{"start_time": START, **given})
        except ValueError:
            continue  # an end before a start, a least value above the greatest
        stored = published.stored(name, filters)
        assert published.chosen(name, filters) == stored, given
        sizes.add(len(stored))
    assert len(sizes) > 3


def test_conditions_on_columns_need_no_query() -> None:
    filters = SpanFilters(model=Not("m"), min_cost_usd=Decimal(1), trace_id=trace_key(1), root=True)
    assert not LiveFilter(filters).undecided
    assert not LiveFilter(LogFilters(min_severity="warn")).undecided
    asked = LogFilters(attributes={"k": 1}, text="x", contains="y", start_time=START)
    assert LiveFilter(asked).undecided == ["attributes", "text", "contains"]


def test_filters_of_another_signal_are_refused(pool: StoragePool) -> None:
    for name, kind in FILTERS.items():
        wrong = TraceFilters() if kind is not TraceFilters else DataPointFilters()
        with pytest.raises(ValueError, match=f"filters=.*must be {kind.__name__}"):
            pool.stream(name, wrong)  # type: ignore[call-overload]  # what is tested
