"""What the app does while Django's tests run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from unittest import TestCase

import pytest
from django.db import connections
from django.test import Client, override_settings
from django.test.utils import setup_test_environment, teardown_test_environment

from observatory_storage import ConfigError, StorageError, StorageHandler, StoragePool
from observatory_storage.django import close_pool, get_pool, get_trace_writer, unit_of_work
from observatory_storage.django.testing import StoreTestMixin, clear_store
from tests.django_app.rows import span, write_conversation


@pytest.fixture
def testing() -> Iterator[None]:
    """As while ``manage.py test`` runs."""
    setup_test_environment()
    yield
    close_pool()
    teardown_test_environment()


def traces() -> int:
    with unit_of_work() as uow:
        return len(uow.traces.list())


def test_the_store_of_an_application_is_not_emptied(project: StoragePool) -> None:
    write_conversation(project)
    with pytest.raises(StorageError, match="no tests are running"):
        clear_store()
    assert traces() == 1


@pytest.mark.usefixtures("project", "testing")
def test_a_test_finds_what_its_requests_recorded_and_leaves_nothing() -> None:
    class Tests(StoreTestMixin, TestCase):
        def test_request(self) -> None:
            Client().get("/refuse")
            assert traces() == 1
            get_trace_writer().write_span(span())

    with override_settings(OBSERVATORY_RECORD_REQUESTS=True):
        result = Tests("test_request").run()
    assert result is not None
    assert result.wasSuccessful(), result.errors + result.failures
    assert traces() == 0
    assert get_trace_writer().buffer_stats().buffered == 0


@pytest.mark.usefixtures("project", "testing")
def test_no_connection_stays_open_that_would_keep_the_database() -> None:
    with unit_of_work() as uow:
        assert len(uow.traces.list()) == 0
        assert get_pool() is uow.source
    with connections["default"].cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )
        assert cursor.fetchone() == (0,)


@pytest.mark.usefixtures("project", "testing")
def test_tests_do_not_write_to_a_database_that_django_does_not_know() -> None:
    url = "postgresql://127.0.0.1:1/"
    with override_settings(OBSERVATORY_DATABASE_URL=f"{url}shop"):
        with pytest.raises(ConfigError, match="tests would write to its database 'shop'"):
            get_pool()
        with override_settings(OBSERVATORY_RECORD_REQUESTS=True):
            assert Client().get("/refuse").status_code == 404
    with override_settings(OBSERVATORY_DATABASE_URL=f"{url}test_shop"):
        assert get_pool().config.postgres.database == "test_shop"


@pytest.mark.usefixtures("project", "testing")
def test_a_handler_of_a_function_follows_the_database_of_tests() -> None:
    record = logging.makeLogRecord({"msg": "paid", "levelno": logging.INFO})
    handler = StorageHandler(get_pool, service_name="shop")
    handler.handle(record)
    first = get_pool()
    with override_settings(OBSERVATORY_DB_POOL_MAX_CONNECTIONS=3):
        handler.handle(record)
        handler.flush()
        assert get_pool() is not first
        assert handler.lost == 0
        with unit_of_work() as uow:
            assert len(uow.logs.list()) == 2
    handler.close()
