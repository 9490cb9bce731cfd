"""A record without a severity number has the one that its severity text stands for."""

from __future__ import annotations

import pytest

from observatory_storage import CopyWriter, StoragePool, ingest_logs
from observatory_storage.models.severities import LEVELS, SEVERITIES
from observatory_storage.repositories import LogFilters
from tests import citus
from tests.repositories.plans import plans_of
from tests.repositories.samples import SECOND, START, a_log

TEXTS = [*SEVERITIES, "error", "Warning", "cRiTiCaL", "LOUD", "E", ""]


@pytest.fixture(scope="module")
def texts(shared_pool: StoragePool) -> StoragePool:
    rows = [
        a_log(number, START + number * SECOND, severity_text=text)
        for number, text in enumerate(TEXTS)
    ]
    # A number counts, whatever the text says.
    rows.append(a_log(100, START, severity_text="ERROR", severity_number=5))
    rows.append(a_log(101, START, severity_text="hm", severity_number=18))
    CopyWriter(shared_pool).write_logs(rows)
    return shared_pool


@pytest.mark.parametrize("least", ["warning", "ERROR", 18, "Critical", "notice", 1, 24])
def test_a_text_counts_as_its_number(texts: StoragePool, least: int | str) -> None:
    number = SEVERITIES[least.upper()] if isinstance(least, str) else least
    severe = {n for n, text in enumerate(TEXTS) if SEVERITIES.get(text.upper(), 0) >= number}
    severe |= {n for n, known in ((100, 5), (101, 18)) if known >= number}
    with texts.unit_of_work() as uow:
        found = uow.logs.list(LogFilters(min_severity=least, limit=200))
        assert {log.id.int for log in found} == severe
        assert uow.logs.get_stats(min_severity=least).log_count == len(severe)


def test_levels_count_texts(texts: StoragePool) -> None:
    with texts.unit_of_work() as uow:
        counts = {one.level: one.count for one in uow.logs.count_by_level()}
        errors = uow.logs.get_stats().error_count
    assert list(counts) == ["UNSPECIFIED", *LEVELS]
    assert counts["UNSPECIFIED"] == 3
    assert errors == counts["ERROR"] + counts["FATAL"]
    assert counts["WARN"] == sum(12 < number < 17 for number in SEVERITIES.values()) + 1


@citus.not_there("shards have plans of their own")
def test_the_index_of_errors_has_them(pool: StoragePool) -> None:
    rows = [
        a_log(n, START + n * SECOND, severity_text="info" if n % 500 else "error")
        for n in range(3000)
    ]
    CopyWriter(pool).write_logs(rows)
    with pool.engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE logs")
    filters = LogFilters(service_name="service", min_severity="ERROR", limit=3)
    (plan,) = plans_of(pool, lambda uow: uow.logs.list(filters))
    assert plan.indexes == {"ix_logs_errors"}, plan.text
    assert plan.rows < 10


def test_what_was_sent_is_kept(pool: StoragePool) -> None:
    record = {"timeUnixNano": "1765432100000000000", "severityText": "Error"}
    ingest_logs(pool, {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]})
    with pool.unit_of_work() as uow:
        (log,) = uow.logs.list(min_severity="ERROR")
    assert (log.severity_text, log.severity_number) == ("Error", None)
