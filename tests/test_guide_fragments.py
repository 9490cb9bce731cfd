"""Examples of guides that need names of the program around them run with such names."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from observatory_storage import LlmSpan, PostgresConfig, StorageConfig, StoragePool, TraceWriter
from tests.pages import DOCS, ROOT, blocks
from tests.test_guide_examples import example_with
from tests.writers.helpers import START

# A call, and what the examples of a page take from the program around them.
CALL = LlmSpan(model="gpt-4o", prompt="Why?", completion="So.", start_time=START, duration_ms=640)
SPAN = {
    "trace_id": "order-17",
    "span_id": "00000000000000a1",
    "name": "chat",
    "service_name": "shop",
    "start_time": START,
    "end_time": START + timedelta(seconds=1),
}


def run(example: str, page: str, names: dict[str, Any] | None = None) -> None:
    exec(compile(example, page, "exec"), {"__name__": "page", **(names or {})})


@pytest.fixture(autouse=True)
def database(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)


def test_writers_of_lists(pool: StoragePool) -> None:
    run(example_with("copy.md", "max_concurrency"), "copy.md", {"spans": [SPAN]})
    with pool.unit_of_work() as uow:
        assert len(uow.traces.get_spans("order-17")) == 1


def test_a_writer_with_a_spool(pool: StoragePool, tmp_path: Path) -> None:
    example = example_with("spool.md", "spool_dir")
    run(example.replace("/var/lib/my-app/spool", str(tmp_path)), "spool.md", {"span": SPAN})
    with pool.unit_of_work() as uow:
        assert len(uow.traces.get_spans("order-17")) == 1


def test_messages_and_facts(pool: StoragePool, capsys: pytest.CaptureFixture[str]) -> None:
    with TraceWriter(pool) as writer:
        span = writer.write_span_from_llm(CALL)
    names = {"pool": pool, "trace_id": span.trace_id, "span_id": span.span_id, "start": START}
    run(example_with("llm.md", "get_messages"), "llm.md", names)
    assert capsys.readouterr().out == "user Why?\nassistant So.\n"
    run(example_with("llm.md", "refresh_facts"), "llm.md", names)


def test_passwords_of_a_function_and_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("of the file")
    example = example_with("operations.md", "def token")
    run(example.replace("/run/secrets/db_password", str(tmp_path / "password")), "operations.md")


def test_sources_of_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("DATABASE_URL", "DB_HOST", "REDIS_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "storage.yaml").write_text("postgres: {host: db.internal}")
    names: dict[str, Any] = {}
    exec(example_with("configuration.md", "StorageConfig.from_env()"), names)
    assert names["config"] == StorageConfig(postgres=PostgresConfig(host="db.internal"))


def test_every_page_with_examples_has_a_test_that_runs_them() -> None:
    tests = [path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    runs = [text for text in tests if "exec(" in text or "subprocess" in text or "served(" in text]
    pages = [page.name for page in DOCS.glob("*.md") if blocks(page, "python")]
    assert [name for name in pages if not any(name in text for text in runs)] == []
