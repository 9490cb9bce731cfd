"""Pages of every list: nothing is missed or doubled while others write, and totals are right."""

from __future__ import annotations

import gc
import random
import weakref
from typing import Any

import pytest

from observatory_storage import StoragePool, ValidationError
from observatory_storage.repositories import Page
from tests import citus
from tests.repositories.lists import LISTS, Listing
from tests.repositories.samples import backwards, forwards, statements

# A list keeps its ends: what is written before the first page's first row is none of a walk's.
OLD = list(range(0, 1000, 20))


@pytest.mark.parametrize("listing", LISTS, ids=str)
def test_paging_misses_and_repeats_no_row_while_others_write(
    pool: StoragePool, listing: Listing
) -> None:
    rng = random.Random(1)
    listing.write(pool, OLD)
    for way in ("forwards", "backwards"):
        written: list[int] = []
        seen: list[int] = []
        with pool.unit_of_work() as uow:
            page = listing.page(uow, limit=7)
            if way == "backwards":
                while page.next is not None:
                    page = listing.page(uow, limit=7, after=page.next)
            present = listing.ordered([listing.place(row) for row in _all(pool, listing)])
            while True:
                places = [listing.place(row) for row in page]
                assert places == listing.ordered(places)
                seen = [*seen, *places] if way == "forwards" else [*places, *seen]
                cursor = page.next if way == "forwards" else page.previous
                if cursor is None:
                    break
                # Between the pages others write: before the place, behind it, and close to it.
                free = [n for n in range(-100, 1100) if n not in {*present, *written}]
                more = rng.sample(free, 3) + [n for n in free if abs(n - places[0]) <= 1]
                listing.write(pool, more)
                written += more
                cursors = {"after" if way == "forwards" else "before": cursor}
                page = listing.page(uow, limit=7, **cursors)
        assert seen == listing.ordered(seen)
        assert len(set(seen)) == len(seen)
        assert set(present) <= set(seen) <= {*present, *written}


@pytest.mark.parametrize("listing", LISTS, ids=str)
def test_rows_written_ahead_of_the_iteration_are_returned(
    pool: StoragePool, listing: Listing
) -> None:
    listing.write(pool, [0, 10, 20, 30])
    with pool.unit_of_work() as uow:
        walk = listing.walk(uow, 1)
        first = listing.place(next(walk))
        listing.write(pool, [15, -10, 40])
        rest = [listing.place(row) for row in walk]
    ahead = [n for n in (-10, 0, 10, 15, 20, 30, 40) if (n < first) == listing.newest_first]
    assert rest == listing.ordered([n for n in ahead if n != first])


@pytest.mark.parametrize("listing", LISTS, ids=str)
def test_iterating_holds_one_batch_in_memory(pool: StoragePool, listing: Listing) -> None:
    listing.write(pool, list(range(1000)))
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most, count = 0, 0
    with pool.unit_of_work() as uow:
        for row in listing.walk(uow, 20):
            alive.add(row)
            count += 1
            if count % 100 == 0:
                gc.collect()
                most = max(most, len(alive))
        assert not uow.session.identity_map.values()
    assert count == 1000
    assert most <= 2 * 20


@pytest.mark.parametrize("size", [3, 50])
@pytest.mark.parametrize("listing", LISTS, ids=str)
def test_the_total_is_the_same_on_every_page(
    pool: StoragePool, listing: Listing, size: int
) -> None:
    listing.write(pool, OLD)
    with pool.unit_of_work() as uow:

        def page_at(**cursor: Any) -> Page[Any]:
            return listing.page(uow, limit=size, total="exact", **cursor)

        pages = forwards(page_at)
        pages += backwards(page_at, pages[-1])
        assert {page.total for page in pages} == {len(OLD)}
        assert {page.total_kind for page in pages} == {"exact"}
        plain = listing.page(uow, limit=size)
        assert (plain.total, plain.total_kind) == (None, None)


@pytest.mark.parametrize("listing", LISTS, ids=str)
def test_a_total_runs_statements_only_if_there_are_more_pages(
    pool: StoragePool, listing: Listing
) -> None:
    listing.write(pool, OLD)
    counts = {}
    with pool.unit_of_work() as uow:
        for limit in (10, 100):
            for total in (None, "exact", "estimated"):
                with statements(pool.engine) as seen:
                    page = listing.page(uow, limit=limit, total=total)
                counts[limit, total] = len(seen)
                if limit == 100 and total:
                    assert (page.total, page.total_kind) == (50, "exact")
    assert counts[100, "exact"] == counts[100, "estimated"] == counts[100, None]
    assert 1 <= counts[10, "exact"] - counts[10, None] <= 2
    of_citus = 1 if citus.URL else 0  # a savepoint
    assert 1 <= counts[10, "estimated"] - counts[10, None] <= 3 + of_citus


# What a text search finds nobody expects: the planner does not know how often words come.
@pytest.mark.parametrize("listing", [one for one in LISTS if one.name != "found logs"], ids=str)
def test_an_estimate_is_near_once_the_tables_are_analysed(
    pool: StoragePool, listing: Listing
) -> None:
    listing.write(pool, list(range(2000)))
    with pool.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")
    with pool.unit_of_work() as uow:
        page = listing.page(uow, limit=10, total="estimated")
        assert page.total == pytest.approx(2000, rel=0.2)
        assert page.total_kind == "estimated"


@pytest.mark.parametrize("listing", LISTS, ids=str)
def test_an_estimate_is_never_less_than_what_was_seen(pool: StoragePool, listing: Listing) -> None:
    listing.write(pool, OLD)  # never analysed
    with pool.unit_of_work() as uow:

        def page_at(**cursor: Any) -> Page[Any]:
            return listing.page(uow, limit=20, total="estimated", **cursor)

        totals = [page.total for page in forwards(page_at)]
        assert all(total is not None and total >= 11 for total in totals)


@pytest.mark.parametrize("listing", LISTS, ids=str)
@pytest.mark.parametrize("total", ["none", "", 1, True, "EXACT"])
def test_an_unknown_kind_of_total_is_refused(
    shared_pool: StoragePool, listing: Listing, total: Any
) -> None:
    listing.write(shared_pool, [0])
    with shared_pool.unit_of_work() as uow, pytest.raises(ValidationError) as refused:
        listing.page(uow, limit=1, total=total)
    assert refused.value.field == "total"


@pytest.mark.parametrize("listing", LISTS, ids=str)
def test_the_cursor_of_another_list_is_refused(shared_pool: StoragePool, listing: Listing) -> None:
    for one in LISTS:
        one.write(shared_pool, OLD)
    with shared_pool.unit_of_work() as uow:
        own = listing.page(uow, limit=2).next
        assert own is not None
        for other in LISTS:
            if other is listing:
                continue
            for cursor in ("after", "before"):
                with pytest.raises(ValidationError, match="another query") as refused:
                    other.page(uow, limit=2, **{cursor: own})
                assert refused.value.field == cursor
        with pytest.raises(ValidationError, match="together"):
            listing.page(uow, limit=2, after=own, before=own)
        # How many rows a page has is not part of the question.
        assert len(listing.page(uow, limit=5, after=own)) == 5


def _all(pool: StoragePool, listing: Listing) -> list[Any]:
    with pool.unit_of_work() as uow:
        return list(listing.walk(uow, 500))


@pytest.mark.parametrize("listing", LISTS, ids=str)
def test_a_page_may_be_of_any_size(pool: StoragePool, listing: Listing) -> None:
    listing.write(pool, [1, 2])
    with pool.unit_of_work() as uow:
        assert len(listing.page(uow, limit=2**31 - 1)) == 2
        assert len(list(listing.walk(uow, 2**31 - 1))) == 2
