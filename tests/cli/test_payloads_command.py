"""`payloads`: values are moved into frames and back, and frames are checked."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from observatory_storage import StoragePool
from tests.commands import Run
from tests.payloads.framed import START, turns, write


def test_values_are_moved_there_and_back(run: Run, pool: StoragePool, database_url: str) -> None:
    write(pool, *turns([1], 1), *turns([2], 1, START + timedelta(days=1)), payloads="inline")
    convert = ("payloads", "convert", "--to", "compressed")
    first = run(*convert, "--for", "0s", "--json", DATABASE_URL=database_url)
    assert first.code == 0, first.err
    next_start = first.document["next_start"]
    counts = {"rows": 1, "changed_rows": 1, "failed_rows": 0}
    assert first.document == {**counts, "next_start": next_start}
    rest = run(*convert, "--since", next_start, DATABASE_URL=database_url)
    assert rest.out.strip() == "3 rows read, 3 changed"
    checked = run("payloads", "check", DATABASE_URL=database_url)
    assert (checked.code, checked.out.strip()) == (0, "4 frames, 6 values, 0 problems")
    back = run("payloads", "convert", "--to", "inline", DATABASE_URL=database_url)
    assert back.out.strip() == "4 rows read, 4 changed"
    assert run(*convert[:2], DATABASE_URL=database_url).code == 2


def test_problems_are_shown_and_change_the_exit_code(
    run: Run, pool: StoragePool, database_url: str
) -> None:
    write(pool, *turns([1, 2], 1))
    with pool.engine.begin() as connection:
        frame = sa.text(
            "UPDATE payload_frames SET data = 'no' WHERE id = (SELECT min(id) FROM payload_frames)"
            " RETURNING id"
        )
        damaged = connection.scalar(frame)
    checked = run("payloads", "check", DATABASE_URL=database_url)
    assert checked.code == 1
    problem, counts = checked.out.strip().rsplit("\n", 1)
    assert problem.startswith(f"payload frame {damaged} of trace ")
    assert counts == "2 frames, 3 values, 1 problem"
    document = run("payloads", "check", "--json", DATABASE_URL=database_url)
    assert document.code == 1
    assert [found["kind"] for found in document.document["problems"]] == ["damaged"]
    moved = run("payloads", "convert", "--to", "inline", DATABASE_URL=database_url)
    assert moved.out.strip() == "4 rows read, 2 changed, 2 failed"
    assert moved.code == 1
    part = run("payloads", "check", "--for", "0s", DATABASE_URL=database_url)
    assert "continue with --since 20" in part.err


def test_without_zstandard_the_extra_is_named(
    run: Run, pool: StoragePool, database_url: str, request: pytest.FixtureRequest
) -> None:
    write(pool, *turns([1], 1))
    request.getfixturevalue("without_zstd")
    for command in (("check",), ("convert", "--to", "inline")):
        result = run("payloads", *command, DATABASE_URL=database_url)
        assert result.code == 1
        assert "pip install 'observatory-storage[zstd]'" in result.err
        assert "server" not in result.err
