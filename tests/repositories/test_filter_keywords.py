"""Every method that takes filters takes their fields as keywords too."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest

from observatory_storage import StoragePool, TimeSeriesQuery, ValidationError
from observatory_storage.repositories.metrics.filters import TimeSeriesKeywords
from tests.repositories.samples import DAY, START, Row


def test_keywords_of_a_time_series_are_the_fields_of_its_query() -> None:
    assert get_type_hints(TimeSeriesKeywords) == get_type_hints(TimeSeriesQuery)


def test_every_method_that_takes_filters_takes_keywords(two_rows: StoragePool) -> None:
    with two_rows.unit_of_work() as uow:
        assert [one.service_name for one in uow.traces.iterate(model="first")] == ["first"]
        assert [one.name for one in uow.traces.iterate_spans(user_id="first")] == ["first"]
        assert [one.session_id for one in uow.traces.iterate_sessions(user_id="first")] == ["first"]
        assert [one.name for one in uow.traces.search_text("first", model="first")] == ["first"]
        assert uow.traces.get_stats(service_name="first").trace_count == 1
        (group,) = uow.traces.get_stats(kind="client", group_by="model")
        assert dict(group.group) == {"model": "first"}
        assert [one.body for one in uow.logs.iterate(min_severity="error")] == ["first"]
        assert [one.body for one in uow.logs.search_text("first", service_name="first")] == [
            "first"
        ]
        assert uow.logs.get_stats(service_name="first").log_count == 1
        assert [one.count for one in uow.logs.count_by_level(service_name="first")] == [1]
        assert len(uow.logs.tail(service_name="first")) <= 1
        assert [one.name for one in uow.metrics.iterate(name="first")] == ["first"]
        (metric,) = uow.metrics.get_by_name("first")
        times: Row = {"start_time": START, "end_time": START + DAY}
        assert uow.metrics.query_time_series(metric_id=metric.id, **times) == []
        query = TimeSeriesQuery(metric.id, **times)
        with pytest.raises(ValidationError, match="together with fill"):
            uow.metrics.query_time_series(query, fill="zero")


def test_a_misspelt_keyword_is_told_the_nearest_field(pool: StoragePool) -> None:
    misspelt: dict[str, Any] = {"servce_name": "chat"}
    with pool.unit_of_work() as uow, pytest.raises(TypeError, match="did you mean 'service_name'"):
        uow.traces.list(**misspelt)
