"""Words in log records, by time and by rank, and substrings: against plain Python."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from observatory_storage import (
    CopyWriter,
    LogRecord,
    PostgresConfig,
    StorageConfig,
    StorageError,
    StoragePool,
    ValidationError,
)
from observatory_storage.repositories import LogFilters, Page
from observatory_storage.repositories.text_search import has_substring, text_query
from tests.repositories.plans import Plan, plans_of
from tests.repositories.populated import analyse
from tests.repositories.samples import (
    DAY,
    SECOND,
    START,
    Row,
    a_log,
    backwards,
    forwards,
    statements,
    trace_key,
)
from tests.servers import Server

WORDS = ("often", "request", "refused", "peer", "timeout", "connect", "connection", "Connexion")
AGES = (0, 1, 59, 599, 600, 601, 7_199, 7_200, 86_400, 90_000, 12 * 86_400, 40 * 86_400)


@pytest.fixture(scope="module")
def records(shared_pool: StoragePool) -> list[Row]:
    """Records of many ages, also of the far past and future, many of them at the same time."""
    rng = random.Random(11)
    times = [START - age * SECOND for age in AGES]
    times += [START - rng.randrange(3_000_000) * SECOND for _ in range(60)]
    times += [datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)]
    rows = [
        a_log(
            number,
            rng.choice(times),
            timestamp_ns=rng.choice([0, 0, 7]),
            severity_number=rng.choice([None, 9, 17]),
            service_name=rng.choice(["api", "worker"]),
            body=None if rng.random() < 0.05 else " ".join(rng.choices(WORDS, k=6)),
        )
        for number in range(1, 500)
    ]
    rows[77]["body"] = "a rarity"
    rows[300]["body"] = "another rarity at 10.0.0.12"
    CopyWriter(shared_pool).write_logs(rows)
    return rows


def in_order(rows: Iterator[Row]) -> list[str]:
    def key(row: Row) -> tuple[Any, ...]:
        return row["timestamp"], row.get("timestamp_ns", 0), row["id"]

    found = sorted(rows, key=key, reverse=True)
    return [row["id"] for row in found]


def ids(rows: Any) -> list[str]:
    return [str(row.id) for row in rows]


def words_of(row: Row) -> list[str]:
    return (row["body"] or "").lower().split()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("often", lambda words: "often" in words),
        ("rarity", lambda words: "rarity" in words),
        ("nowhere", lambda words: False),
        ("connect", lambda words: "connect" in words),
        ("connect*", lambda words: any(word.startswith("connect") for word in words)),
        ("CONN*", lambda words: any(word.startswith("conn") for word in words)),
        ("-conn*", lambda words: words and not any(word.startswith("conn") for word in words)),
        (
            "time* -often",
            lambda words: "timeout" in words and "often" not in words,
        ),
        ("rar* or nowh*", lambda words: "rarity" in words),
        (
            '"often conn*"',
            lambda words: any(
                one == "often" and other.startswith("conn") for one, other in pairwise(words)
            ),
        ),
        ('"10.0.0.*"', lambda words: "10.0.0.12" in words),
        ("10.0.0* rarity", lambda words: "10.0.0.12" in words),
    ],
)
@pytest.mark.parametrize(
    "conditions",
    [
        {},
        {"service_name": "api", "start_time": START - DAY},
        {"min_severity": 17, "end_time": START},
        {"start_time": START - 13 * DAY, "end_time": START - 500 * SECOND},
    ],
    ids=str,
)
def test_words_are_found_newest_first(
    shared_pool: StoragePool, records: list[Row], text: str, meant: Any, conditions: dict[str, Any]
) -> None:
    filters = LogFilters(**conditions, limit=110)
    expected = in_order(
        row
        for row in records
        if meant(words_of(row))
        and filters.service_name in (None, row["service_name"])
        and (row["severity_number"] or 0) >= int(filters.min_severity or 0)
        and (filters.start_time is None or row["timestamp"] >= filters.start_time)
        and (filters.end_time is None or row["timestamp"] < filters.end_time)
    )
    with shared_pool.unit_of_work() as uow:

        def page_at(**cursor: Any) -> Page[LogRecord]:
            return uow.logs.search_text(text, filters, **cursor)

        pages = forwards(page_at)
        assert [id_ for page in pages for id_ in ids(page)] == expected
        assert [ids(page) for page in backwards(page_at, pages[-1])] == [ids(p) for p in pages]
        found = uow.logs.iterate(LogFilters(**conditions, text=text), 100)
        assert ids(found) == expected
        by_rank = uow.logs.search_text(text, LogFilters(**conditions, limit=500), order="rank")
        assert sorted(ids(by_rank)) == sorted(expected)
        counted = uow.logs.search_text(text, filters, total="exact")
        assert counted.total == len(expected)


def test_a_page_takes_few_statements(shared_pool: StoragePool, records: list[Row]) -> None:
    with shared_pool.unit_of_work() as uow:
        for text, most in (("often", 4), ("nowhere", 6)):
            with statements(shared_pool.engine) as seen:
                page = uow.logs.search_text(text, LogFilters(limit=3))
            assert len(seen) <= most
        with statements(shared_pool.engine) as seen:
            page = uow.logs.search_text("often", LogFilters(limit=3), order="rank")
        assert len(seen) == 1
        assert not uow.logs.search_text("often", LogFilters(service_name="nobody"))
    assert all("resource_attributes" not in sql.rpartition(" FROM ")[0] for sql in seen)
    with pytest.raises(StorageError, match=r"payload=True"):
        _ = page[0].resource_attributes


def test_what_is_written_meanwhile_hides_nothing(pool: StoragePool) -> None:
    writer = CopyWriter(pool)
    writer.write_logs([a_log(at, START - at * SECOND, body="word") for at in range(1, 30)])
    with pool.unit_of_work() as uow:
        page = uow.logs.search_text("word", LogFilters(limit=10))
        found = ids(page)
        for at in range(2):
            writer.write_logs(
                [a_log(100 + at, START + at * SECOND, body="word"), a_log(200 + at, body="other")]
            )
            page = uow.logs.search_text("word", LogFilters(limit=10), after=page.next)
            found += ids(page)
        assert page.next is None
    assert found == [a_log(at)["id"] for at in range(1, 30)]


def test_the_best_come_first(pool: StoragePool) -> None:
    bodies = [
        "refused connection",
        "connection refused",
        "connection refused",
        "the connection was, as far as anybody knows, refused in the end",
        "connection of a kind that is not of this world refused",
        "connection",
        "connection refused, connection refused, connection refused",
    ]
    rows = [a_log(at, START + at * SECOND, body=body) for at, body in enumerate(bodies, 1)]
    CopyWriter(pool).write_logs(rows)
    ranked = sa.text(
        "SELECT id FROM (SELECT *, ts_rank_cd(to_tsvector('simple', body), q, 1) AS rank"
        " FROM logs, websearch_to_tsquery('simple', 'connection refused') AS q"
        " WHERE to_tsvector('simple', body) @@ q) AS found ORDER BY rank DESC, timestamp DESC"
    )
    with pool.unit_of_work() as uow:
        expected = [str(id_) for id_ in uow.session.scalars(ranked)]

        def page_at(**cursor: Any) -> Page[LogRecord]:
            filters = LogFilters(limit=2)
            return uow.logs.search_text("connection refused", filters, order="rank", **cursor)

        pages = forwards(page_at)
        assert [id_ for page in pages for id_ in ids(page)] == expected
        assert [ids(page) for page in backwards(page_at, pages[-1])] == [ids(p) for p in pages]
        assert page_at(total="exact").total == 6
        assert pages[1].next is not None
        with pytest.raises(ValidationError, match="another query"):
            uow.logs.search_text("connection refused", LogFilters(limit=2), after=pages[1].next)
        by_time = uow.logs.search_text("connection refused", LogFilters(limit=2))
        with pytest.raises(ValidationError, match="another query"):
            page_at(after=by_time.next)
        for wrong in ("best", None, 5):
            with pytest.raises(ValidationError, match="order"):
                uow.logs.search_text("x", order=wrong)  # type: ignore[arg-type]  # what is tried here
        with pytest.raises(ValidationError, match="before"):
            page_at(after=pages[0].next, before=pages[1].previous)
    # Those in which the words stand together before those in which they stand apart.
    assert expected[0] == rows[6]["id"]
    assert expected.index(rows[1]["id"]) < expected.index(rows[4]["id"])
    assert expected.index(rows[3]["id"]) < expected.index(rows[4]["id"])
    # And of two alike the newest.
    assert expected.index(rows[2]["id"]) + 1 == expected.index(rows[1]["id"])


@pytest.fixture(scope="module")
def connection(postgres_server: Server, migrated_template: str) -> Iterator[sa.Connection]:
    with postgres_server.database(migrated_template) as url:
        config = StorageConfig(postgres=PostgresConfig.from_url(url))
        with StoragePool(config) as pool, pool.engine.connect() as connection:
            yield connection


texts = st.text(st.sampled_from("ab *\"'\\-:&|!()<>%_.@/é\t") | st.characters(codec="utf-8"))


def storable(text: str) -> str:
    return text.replace("\0", " ")


@given(texts)
def test_any_text_is_a_search(connection: sa.Connection, text: str) -> None:
    given = storable(text)
    read = connection.scalar(sa.select(sa.cast(text_query(given), sa.Text)))
    assert isinstance(read, str)
    if "*" not in given:
        plain = sa.func.websearch_to_tsquery(sa.text("'simple'::regconfig"), given)
        assert read == connection.scalar(sa.select(sa.cast(plain, sa.Text)))


@given(st.lists(st.text("abC1", min_size=1), max_size=5), st.text("abC1", min_size=1))
def test_a_word_is_found_by_its_beginning(
    connection: sa.Connection, body: list[str], beginning: str
) -> None:
    vector = sa.func.to_tsvector(sa.text("'simple'::regconfig"), " ".join(body))
    found, not_found = connection.execute(
        sa.select(
            vector.bool_op("@@")(text_query(f"{beginning}*")),
            vector.bool_op("@@")(text_query(f"-{beginning}*")),
        )
    ).one()
    # PostgreSQL reads "1ab" as two words, and "1e5" as a number.
    if not any(re.match(r"\d+[a-z]", word.lower()) for word in (*body, beginning)):
        assert found == any(word.lower().startswith(beginning.lower()) for word in body)
    assert found != not_found


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("GET /api/v1/users/5 200", "/api/v1/us*"),
        ("see http://example.com/a/b?c", "http://exam*"),
        ("mail to user@example.com now", '"to user@exam* now"'),
        ("at 2026-01-01T10:00:00Z", "2026-01*"),
        ("see foo-barbaz here", '"foo-bar* here"'),
        ("Foo.Bar.Baz()", "foo.ba*"),
        ("it's O'Reilly's", "o'rei*"),
        ("a 'quoted' one", "'quo*"),
        (r"C:\Users\ann", r"C:\Us*"),
        ("prefix0 prefix1", "prefix* prefix1"),
        ("prefix0 beginning", "prefix0 begin*"),
        ("orange", "or*"),
    ],
)
def test_beginnings_of_other_things_than_words(
    connection: sa.Connection, body: str, text: str
) -> None:
    vector = sa.func.to_tsvector(sa.text("'simple'::regconfig"), body)
    assert connection.scalar(sa.select(vector.bool_op("@@")(text_query(text))))


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a*b", "'a' <-> 'b'"),
        ("**bold**", "'bold'"),
        ("a *", "'a'"),
        ("_* x", "'x'"),
        ("(begin*", "'begin':* | '(begin':*"),
        ("begin*)", "'begin'"),
        ("--", ""),
    ],
)
def test_other_stars_say_nothing(connection: sa.Connection, text: str, read: str) -> None:
    assert connection.scalar(sa.select(sa.cast(text_query(text), sa.Text))) == read


def test_beginnings_have_a_limit(shared_pool: StoragePool) -> None:
    with shared_pool.unit_of_work() as uow:
        assert not uow.logs.search_text(" ".join(f"w{at}*" for at in range(20)))
        with pytest.raises(ValidationError, match="text"):
            uow.logs.search_text(" ".join(f"w{at}*" for at in range(21)))


BODIES = ["100% done_with it", "100x doneXwith it", r"back\slash", "O'Reilly", "Done", None, ""]


@pytest.mark.parametrize(
    "value",
    ["done", "DONE", "0% DONE_w", "%", "_", "\\", r"\%", "'", "e", "nothing", " ", "x" * 10_000],
)
def test_substrings_are_literal(pool: StoragePool, value: str) -> None:
    rows = [a_log(at, START + at * SECOND, body=body) for at, body in enumerate(BODIES, 1)]
    CopyWriter(pool).write_logs(rows)
    expected = in_order(row for row in rows if row["body"] and value.lower() in row["body"].lower())
    with pool.unit_of_work() as uow:
        found = uow.logs.list(LogFilters(contains=value, start_time=START))
        assert ids(found) == expected
        later = LogFilters(contains=value, start_time=START + 3 * SECOND, text="o'reilly")
        assert ids(uow.logs.list(later)) == [id_ for id_ in expected if id_ == rows[3]["id"]]
        assert uow.logs.get_stats(LogFilters(contains=value, start_time=START)).log_count == len(
            expected
        )
        assert not uow.logs.list(
            LogFilters(contains=value, start_time=START, end_time=START + SECOND)
        )


@given(texts, texts.filter(bool))
def test_any_text_is_a_substring(connection: sa.Connection, text: str, value: str) -> None:
    body, wanted = storable(text), storable(value)
    for whole in (body, body + wanted + body):
        found = connection.scalar(sa.select(has_substring(sa.literal(whole), wanted)))
        if wanted in whole:
            assert found
        elif (whole + wanted).isascii():
            assert found == (wanted.lower() in whole.lower())


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("start_time", {"contains": "x"}),
        ("start_time", {"contains": "x", "end_time": START}),
        ("contains", {"contains": "", "start_time": START}),
        ("contains", {"contains": 5, "start_time": START}),
        ("contains", {"contains": "x" * 10_001, "start_time": START}),
    ],
)
def test_a_substring_needs_a_time(field: str, given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as error:
        LogFilters(**given)
    assert error.value.field == field


def test_records_of_a_trace_may_be_of_any_time(pool: StoragePool) -> None:
    times = [START - 40 * DAY, START, START + SECOND, START + 40 * DAY]
    CopyWriter(pool).write_logs(
        [a_log(at, time, trace_id=trace_key(1)) for at, time in enumerate(times, 1)]
    )
    with pool.unit_of_work() as uow:
        found = [record.timestamp for record in uow.logs.get_by_trace(trace_key(1))]
        bounded = uow.logs.get_by_trace(trace_key(1), START, START + SECOND)
        assert [r.timestamp for r in uow.logs.get_by_trace(trace_key(1), START)] == times[1:]
        with pytest.raises(ValidationError, match="end_time"):
            uow.logs.get_by_trace(trace_key(1), START, START - SECOND)
    assert found == times
    assert [record.timestamp for record in bounded] == [START]


# Midnight, of days that are near enough to have partitions of their own.
FIRST = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - 3 * DAY


@pytest.fixture(scope="module")
def filled_pool(postgres_server: Server, migrated_template: str) -> Iterator[StoragePool]:
    """Three days of records as a server has them after a while; of one word there are few."""
    rng = random.Random(3)
    vocabulary = [f"word{number}" for number in range(300)]
    rows = (
        a_log(
            number + 1,
            FIRST + number * (3 * DAY / 15_000),
            trace_id=trace_key(number // 5 + 1),
            body=" ".join([*rng.choices(vocabulary, k=12), *(["rare"] * (number % 2500 == 7))]),
        )
        for number in range(15_000)
    )
    with postgres_server.database(migrated_template) as url:
        config = StorageConfig(postgres=PostgresConfig.from_url(url))
        with StoragePool(config) as made:
            CopyWriter(made).write_logs(rows)
            analyse(made)
            yield made


def partition(day: int) -> str:
    return f"logs_p{FIRST + day * DAY:%Y%m%d}"


def looked_through(plans: list[Plan]) -> float:
    """The most records that one of the statements has looked at."""
    return max(sum(scan.rows for scan in plan.run if scan.relation is not None) for plan in plans)


@pytest.mark.parametrize("order", ["time", "rank"])
@pytest.mark.parametrize("text", ["rare", "rar*", '"rare"', "nowhere", "rare -nowhere"])
def test_rare_words_are_found_by_the_index(filled_pool: StoragePool, order: Any, text: str) -> None:
    filters = LogFilters(start_time=FIRST + DAY, end_time=FIRST + 2 * DAY)
    plans = plans_of(filled_pool, lambda uow: uow.logs.search_text(text, filters, order=order))
    for plan in plans:
        assert plan.relations("logs") <= {partition(1)}, plan.text
        assert not plan.read_whole, plan.text
        assert "ix_logs_body" in plan.indexes or "max(" in plan.statement, plan.text
    assert looked_through(plans) < 30, "\n\n".join(plan.text for plan in plans)


def test_rare_words_are_found_in_all_time(filled_pool: StoragePool) -> None:
    plans = plans_of(filled_pool, lambda uow: uow.logs.search_text("rare"))
    assert any("ix_logs_body" in plan.indexes for plan in plans)
    assert not any(plan.read_whole for plan in plans)
    assert looked_through(plans) < 30, "\n\n".join(plan.text for plan in plans)


def test_frequent_words_are_found_in_little_time(filled_pool: StoragePool) -> None:
    filters = LogFilters(limit=5)
    plans = plans_of(filled_pool, lambda uow: uow.logs.search_text("word7 or word8*", filters))
    # One in seven records matches; of fifteen thousand, those of the last two hours are read.
    assert len(plans) <= 3
    assert looked_through(plans) < 3000, "\n\n".join(plan.text for plan in plans)
    with filled_pool.unit_of_work() as uow:
        page = uow.logs.search_text("word7 or word8*", filters)
        following = plans_of(
            filled_pool,
            lambda uow: uow.logs.search_text("word7 or word8*", filters, after=page.next),
        )
    assert len(following) <= 2


def test_records_of_a_trace_are_found_by_the_index(filled_pool: StoragePool) -> None:
    (plan,) = plans_of(filled_pool, lambda uow: uow.logs.get_by_trace(trace_key(1000)))
    assert plan.indexes == {"ix_logs_trace_id"}, plan.text
    assert plan.rows < 30
    bounds = (FIRST + DAY, FIRST + 2 * DAY)
    (plan,) = plans_of(filled_pool, lambda uow: uow.logs.get_by_trace(trace_key(1000), *bounds))
    assert plan.relations("logs") <= {partition(1)}, plan.text


def test_substrings_are_looked_for_within_the_time(filled_pool: StoragePool) -> None:
    filters = LogFilters(contains="RARE", start_time=FIRST + 2 * DAY, end_time=FIRST + 3 * DAY)
    (plan,) = plans_of(filled_pool, lambda uow: uow.logs.list(filters))
    assert plan.relations("logs") == {partition(2)}, plan.text
