"""For tests of a project: the store of the test's database, emptied after each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from observatory_storage.django.app_pool import flush_writers, get_pool
from observatory_storage.django.app_settings import is_testing
from observatory_storage.errors import StorageError, translated
from observatory_storage.models import Base

if TYPE_CHECKING:
    from unittest import TestCase as _Base
else:
    _Base = object

__all__ = ["StoreTestMixin", "clear_store"]


class StoreTestMixin(_Base):
    """Empties the store after each test. The rollback of a ``TestCase`` does not reach it.

    Example::

        class AskTests(StoreTestMixin, TestCase):
            def test_an_answer_has_a_trace(self):
                trace_id = self.client.get("/ask").json()["trace_id"]
                with unit_of_work() as uow:
                    self.assertEqual(len(uow.traces.get_spans(trace_id)), 3)
    """

    def setUp(self) -> None:
        """Begin a test; its end empties the store."""
        super().setUp()
        self.addCleanup(clear_store)


def clear_store() -> None:
    """Write what is buffered, and delete all rows of the store, also prices.

    Raises:
        StorageError: no tests are running, so it would be the store of the application.
    """
    if not is_testing():
        raise StorageError("clear_store empties the store of tests, and no tests are running")
    flush_writers()
    pool = get_pool()
    with translated(), pool.engine.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(sa.delete(table))
    pool.prices.forget()
