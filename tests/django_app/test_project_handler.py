"""`DjangoStorageHandler` stores the records of a project that names it in ``LOGGING``."""

from __future__ import annotations

import logging
import logging.config
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import dedent

import psycopg
import pytest
from django.test import Client, override_settings
from django.test.utils import setup_test_environment, teardown_test_environment

from observatory_storage import LogRecord, StoragePool
from observatory_storage.django import DjangoStorageHandler, close_pool, get_log_writer, get_pool
from tests.test_guide_examples import example_with

EXAMPLE = Path(__file__).parents[2] / "examples" / "django"
LOGGING = example_with("django.md", "DjangoStorageHandler")


@pytest.fixture
def handler() -> Iterator[DjangoStorageHandler]:
    handler = DjangoStorageHandler(level="INFO")
    root = logging.getLogger()
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)
    handler.close()


def stored(pool: StoragePool) -> list[LogRecord]:
    with pool.unit_of_work() as uow:
        return list(uow.logs.list())


def test_records_of_a_request_belong_to_its_span(
    project: StoragePool, handler: DjangoStorageHandler
) -> None:
    with override_settings(OBSERVATORY_RECORD_REQUESTS=True, OBSERVATORY_SERVICE_NAME="shop"):
        Client(raise_request_exception=False).get("/fail")
        handler.flush()
        (record,) = stored(project)
    assert (record.service_name, record.scope_name) == ("shop", "django.request")
    assert record.body == "Internal Server Error: /fail"
    assert record.trace_id is not None
    assert handler.lost == 0


@pytest.mark.usefixtures("new_project")
def test_records_wait_for_the_tables(handler: DjangoStorageHandler) -> None:
    logging.getLogger("shop").warning("early")
    handler.flush()
    get_pool().run_migrations()
    handler.flush()
    assert [record.body for record in stored(get_pool()) if record.scope_name == "shop"] == [
        "early"
    ]
    assert handler.lost == 0


def test_the_writer_of_the_project_stays_open(
    project: StoragePool, handler: DjangoStorageHandler
) -> None:
    logging.getLogger("shop").warning("late")
    handler.close()
    assert not get_log_writer().closed
    assert [record.body for record in stored(project)] == ["late"]


@pytest.mark.usefixtures("project")
def test_tests_do_not_write_to_the_store_of_the_application(
    handler: DjangoStorageHandler,
) -> None:
    setup_test_environment()
    try:
        logging.getLogger("shop").warning("of a test")  # the database is not that of a test
    finally:
        close_pool()
        teardown_test_environment()
    handler.flush()
    assert stored(get_pool()) == []
    assert handler.lost == 0


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The example with the ``LOGGING`` of the guide, and an app that logs early."""
    files = {
        "shop_settings.py": "from chat.settings import *\nINSTALLED_APPS += ['shop.apps.Shop']\n"
        f"{LOGGING}",
        "shop/__init__.py": "",
        "shop/apps.py": """
            import logging
            from django.apps import AppConfig

            class Shop(AppConfig):
                name = "shop"

                def ready(self):
                    logging.getLogger("shop").info("ready")
        """,
        "shop/models.py": """
            import logging

            logging.getLogger("shop").info("imported")
        """,
        "shop/tests.py": """
            import logging
            from django.test import SimpleTestCase, TestCase
            from observatory_storage.django import unit_of_work
            from observatory_storage.django.testing import StoreTestMixin

            class Tests(StoreTestMixin, TestCase):
                def test_record(self):
                    logging.getLogger("shop").info("in a test")
                    with unit_of_work() as uow:
                        (record,) = uow.logs.list()
                    self.assertEqual(record.body, "in a test")

            class Last(SimpleTestCase):
                def test_record(self):
                    logging.getLogger("shop").info("the last one")
        """,
    }
    (tmp_path / "shop").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(dedent(text))
    return tmp_path


def manage(shop: Path, url: str, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, (shop, EXAMPLE, EXAMPLE.parents[1])))
    return subprocess.run(
        [sys.executable, "-m", "django", *arguments],
        cwd=shop,
        env={
            **os.environ,
            "DATABASE_URL": url,
            "PYTHONPATH": path,
            "DJANGO_SETTINGS_MODULE": "shop_settings",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def bodies(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT body FROM logs ORDER BY timestamp")
        return [body for (body,) in rows]


def test_records_from_before_the_apps_are_ready_are_stored(shop: Path, database_url: str) -> None:
    ended = manage(shop, database_url, ["check"])
    assert ended.returncode == 0, ended.stderr
    assert "could not" not in ended.stderr
    assert bodies(database_url) == ["imported", "ready"]


def test_tests_of_a_project_store_records_in_a_store_of_their_own(
    shop: Path, database_url: str
) -> None:
    ended = manage(shop, database_url, ["test", "shop", "--parallel", "2"])
    assert ended.returncode == 0, ended.stderr
    assert "Ran 2 tests" in ended.stderr
    assert "observatory_storage:" not in ended.stderr  # a report of lost records
    assert "stay buffered" not in ended.stderr
    assert bodies(database_url) == []
