"""What docs/ids.md says about ids."""

from __future__ import annotations

import re
from uuid import UUID

import psycopg
import pytest

from observatory_storage import StoragePool, ids
from tests.pages import DOCS, blocks

PAGE = DOCS / "ids.md"
TEXT = PAGE.read_text("utf-8")


def test_examples_of_the_table_are_computed() -> None:
    found = re.findall(r"`([^`]+)` is `([0-9a-f-]{36})`", TEXT)
    assert len(found) == 3
    for text, uuid in found:
        assert ids.trace_uuid(text) == UUID(uuid)
    assert str(ids.NAMESPACE) in TEXT
    assert f"at most {ids.MAX_NAME_BYTES:,} bytes" in TEXT


def test_the_example_and_the_sql_run(
    pool: StoragePool,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    (example,) = blocks(PAGE, "python")
    exec(compile(f"{example}\npool.close()", PAGE.name, "exec"), {"__name__": "page"})
    uuid = str(ids.trace_uuid("order-17"))
    assert capsys.readouterr().out.splitlines()[0] == f"{uuid} order-17"
    (statements,) = blocks(PAGE, "sql")
    with psycopg.connect(database_url) as connection:
        answers = [
            connection.execute(statement.encode()).fetchall()
            for statement in statements.strip().split(";")[:-1]
        ]
    assert answers == [[(UUID(uuid),)], [("chat gpt-4o", 640_000)], [(uuid.replace("-", ""),)]]


def test_a_former_form_is_another_trace() -> None:
    plain = "5b8efff798038103d269b633813fc60c"
    assert ids.trace_uuid(f"tr-{plain}") != ids.trace_uuid(plain)
    assert ids.trace_uuid("1234567890123456").int == 0x1234567890123456
    xray = "1-5759e988-bd862e3fe1be46a994272793"
    assert ids.trace_uuid(xray.removeprefix("1-").replace("-", "")).hex == (
        "5759e988bd862e3fe1be46a994272793"
    )
