"""What people type is read as a search, or as a substring, whatever it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from observatory_storage import (
    CopyWriter,
    PostgresConfig,
    StorageConfig,
    StoragePool,
    ValidationError,
)
from observatory_storage.repositories import LogFilters
from observatory_storage.repositories.reading.text_search import (
    matches,
    substring_pattern,
    text_query,
)
from tests.repositories.samples import (
    SECOND,
    START,
    a_log,
    ids_of,
    newest_records,
)
from tests.servers import Server


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
def test_prefixes_of_addresses_paths_and_versions_match(
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
def test_stars_elsewhere_than_at_the_end_of_a_word_are_ignored(
    connection: sa.Connection, text: str, read: str
) -> None:
    assert connection.scalar(sa.select(sa.cast(text_query(text), sa.Text))) == read


def test_a_search_takes_at_most_twenty_prefixes(shared_pool: StoragePool) -> None:
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
    expected = newest_records(
        row for row in rows if row["body"] and value.lower() in row["body"].lower()
    )
    with pool.unit_of_work() as uow:
        found = uow.logs.list(LogFilters(contains=value, start_time=START))
        assert ids_of(found) == expected
        later = LogFilters(contains=value, start_time=START + 3 * SECOND, text="o'reilly")
        assert ids_of(uow.logs.list(later)) == [id_ for id_ in expected if id_ == rows[3]["id"]]
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
        found = connection.scalar(sa.select(matches(sa.literal(whole), substring_pattern(wanted))))
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
