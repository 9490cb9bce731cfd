"""The project of `project.py` on a database of each test's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections
from psycopg.conninfo import conninfo_to_dict

from observatory_storage import StoragePool
from observatory_storage.django import close_pool, get_pool
from tests.servers import Server


@contextmanager
def project_on(url: str) -> Iterator[None]:
    """The project's default database is that of the URL."""
    entry: dict[str, Any] = connections.settings["default"]
    before = dict(entry)
    address = conninfo_to_dict(url)
    entry.update({"NAME": address.pop("dbname"), "OPTIONS": address})
    try:
        yield
    finally:
        close_pool()
        connections.close_all()
        entry.update(before)


@pytest.fixture
def project(database_url: str) -> Iterator[StoragePool]:
    """The pool of the project, whose store is migrated. Django's own tables are missing."""
    with project_on(database_url):
        yield get_pool()


@pytest.fixture
def new_project(empty_database_url: str) -> Iterator[str]:
    """The URL of the project's database, in which nothing is migrated."""
    with project_on(empty_database_url):
        yield empty_database_url


@pytest.fixture(scope="module")
def whole_project(postgres_server: Server, migrated_template: str) -> Iterator[None]:
    """As `project`, with Django's own tables, for all tests of a module."""
    with postgres_server.database(migrated_template) as url, project_on(url):
        call_command("migrate", verbosity=0)
        yield
