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
from observatory_storage.models.search_words import (
    matches,
    separate,
    substring_pattern,
    words_of,
)
from observatory_storage.repositories import LogFilters
from observatory_storage.repositories.reading.text_search import TextSearch
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


def found_in(body: sa.ColumnElement[Any] | str, text: str) -> sa.ColumnElement[bool]:
    """The condition that a search finds a body, as that of log records is made."""
    whole = sa.literal(body) if isinstance(body, str) else body
    return TextSearch(text).condition(
        words_of(whole), lambda written: matches(whole, substring_pattern(written))
    )


@given(texts)
def test_any_text_is_a_search(connection: sa.Connection, text: str) -> None:
    given = storable(text)
    query = connection.scalar(sa.select(sa.cast(TextSearch(given).query(), sa.Text)))
    assert isinstance(query, str)
    assert connection.scalar(sa.select(found_in(given, given))) in (True, False)


words = st.text(
    st.sampled_from("ab1._/-:~\\<>{}()[]=?&%#@+'é京ก한_,") | st.characters(codec="utf-8"),
    min_size=1,
).filter(lambda word: len(word.split()) == 1)


@given(texts, words, texts)
def test_what_is_copied_from_a_body_finds_it(
    connection: sa.Connection, before: str, word: str, after: str
) -> None:
    copied = storable(word).strip()
    is_operator = copied.startswith("-") or copied.lower() == "or" or '"' in copied
    if is_operator or copied.endswith("*") or not any(map(str.isalnum, copied)):
        return
    body = f"{storable(before)} {copied}\n{storable(after)}"
    # PostgreSQL's parser knows no letters that are newer than its server's locale.
    known = sa.func.to_tsvector(sa.text("'simple'::regconfig"), copied)
    if connection.scalar(sa.select(sa.func.length(known))):
        assert connection.scalar(sa.select(found_in(body, copied)))


@given(st.lists(st.text("abC1", min_size=1), max_size=5), st.text("abC1", min_size=1))
def test_a_word_is_found_by_its_beginning(
    connection: sa.Connection, body: list[str], beginning: str
) -> None:
    whole = " ".join(body)
    found, not_found = connection.execute(
        sa.select(found_in(whole, f"{beginning}*"), found_in(whole, f"-{beginning}*"))
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
    assert connection.scalar(sa.select(found_in(body, text)))


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a*b", "'a' & 'b'"),
        ("**bold**", "'bold'"),
        ("a *", "'a'"),
        ("_* x", "'x'"),
        ("(begin*", "'begin':*"),
        ("begin*)", "'begin'"),
        ("--", ""),
    ],
)
def test_stars_elsewhere_than_at_the_end_of_a_word_are_ignored(
    connection: sa.Connection, text: str, read: str
) -> None:
    assert connection.scalar(sa.select(sa.cast(TextSearch(text).query(), sa.Text))) == read


BODY = (
    "GET https://example.com/a/b?x=1, (see ~/notes.md or C:\\temp) from <module> in List<String>;"
    " std::vector user@example.com 1.2.3 --verbose a_b x=1 <br/> “quoted” 東京タワーへ"
    " ภาษาไทย 서울에서 \\frac{a}{b} it\u2019s &amp; #7"
)


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        *((word, True) for word in BODY.replace("“", " ").split() if word != "or"),
        *(("example", True), ("module", True), ("String", True), ("notes", True), ("quoted", True)),
        *(("京タ", True), ("タワー", True), ("ษาไท", True), ("울에", True), ("京東", False)),
        *(("b/a", False), ("https://example.com/a/c", False), ("1.2", True), ("2.1", False)),
        *(("1.2.4 or a_b", True), ("1.2.4 or b_a", False), ("temp -C:\\temp", False)),
        *(("temp -D:\\temp", True), ('"a/b?x=1, (see"', True), ('"a/b see"', False)),
        *(('-"a/b see"', True), ("it's", True), ("-it's", False), ("frac", True)),
        *(("https://example.com/a/*", True), ("https://ex*", True), ("https://xe*", False)),
        *(('"see ~/no* or"', True), ("東*", True), ("<modul", False), ("&lt;", False)),
    ],
)
def test_words_with_other_characters_than_letters(
    connection: sa.Connection, text: str, is_found: bool
) -> None:
    assert connection.scalar(sa.select(found_in(BODY, text))) is is_found


@given(texts)
def test_a_search_is_divided_as_the_index_is(connection: sa.Connection, text: str) -> None:
    given = storable(text)
    divided = sa.func.to_tsvector(sa.text("'simple'::regconfig"), separate(given))
    same = words_of(sa.literal(given)) == divided
    assert connection.scalar(sa.select(same))


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
