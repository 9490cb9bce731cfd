"""The examples of `docs/logging.md` and `docs/recording.md`."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from openai.types.chat import ChatCompletion

import observatory_storage
from observatory_storage import LogRecord, StoragePool, shared_pool
from observatory_storage.recording.shared_writer import writer_of
from tests.recording.test_llm_sdks import CHAT, CHAT_CHUNKS
from tests.recording.test_observe import spans
from tests.writers.helpers import fetch

DOCS = Path(__file__).parents[2] / "docs"


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = [*root.handlers], root.level
    yield
    for handler in [*root.handlers]:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def names(pool: StoragePool) -> dict[str, Any]:
    """What the examples use without saying where it is from."""
    return {name: getattr(observatory_storage, name) for name in observatory_storage.__all__} | {
        "logging": logging,
        "asyncio": asyncio,
        "Iterator": Iterator,
        "pool": pool,
        "client": Client(),
        "messages": [{"role": "user", "content": "What is a pen?"}],
        "request": SimpleNamespace(headers={"traceparent": TRACEPARENT}),
        "requests": SimpleNamespace(get=lambda url, headers: None),
    }


TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Client:
    """Answers as the SDK of OpenAI does."""

    def __init__(self) -> None:
        self.chat = SimpleNamespace(completions=self)

    def create(self, *, model: str, messages: Any, stream: bool = False, **_: Any) -> Any:
        assert (model, messages[0]["role"]) == ("gpt-5", "user")
        return iter(CHAT_CHUNKS) if stream else ChatCompletion.model_validate(CHAT)


def run(code: str, page: str, known: dict[str, Any]) -> dict[str, Any]:
    exec(compile(code, page, "exec", dont_inherit=True), known)
    return known


def test_examples_of_logging_run(
    pool: StoragePool,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setattr(shared_pool, "_shared", [])
    configured, _of_django, in_code, queued, with_structlog = examples("logging.md")
    run(configured, "logging.md", {"__name__": "page"})
    shared_pool.shared_pool().close()
    logging.getLogger().handlers.clear()
    run(in_code, "logging.md", names(pool))["handler"].close()
    known = run(queued, "logging.md", names(pool))
    try:
        raise LookupError("sold out")
    except LookupError:
        logging.getLogger("shop").exception("through the queue")
    known["listener"].stop()
    known["listener"].handlers[0].close()
    logging.getLogger().handlers.clear()
    run(with_structlog, "logging.md", names(pool))
    structlog.get_config()["processors"][3].close()
    rows = {row["body"]: row for row in fetch(pool, LogRecord)}
    assert rows.keys() == {"order A-1 is late", "through the queue", "order is late"}
    assert rows["order A-1 is late"]["attributes"]["customer"] == 42
    assert rows["order is late"]["attributes"]["customer"] == 42
    assert rows["through the queue"]["attributes"]["exception.message"] == "sold out"
    assert '"event": "order is late"' in capsys.readouterr().out


def test_first_example_of_recording_runs_alone(
    pool: StoragePool,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    first = examples("recording.md")[0]
    run(first, "recording.md", {"__name__": "page"})
    assert capsys.readouterr().out == "You asked: Do I need a coat? It has 21 degrees.\n"
    found = spans(pool)
    assert found.keys() == {"answer", "weather", "chat gpt-5"}
    assert {row["service_name"] for row in found.values()} == {"shop"}


def test_other_examples_of_recording_run(
    pool: StoragePool, capsys: pytest.CaptureFixture[str]
) -> None:
    for example in examples("recording.md")[1:]:
        known = run(example, "recording.md", names(pool))
        if "main" in known:
            asyncio.run(known["main"]())
        elif "tell" in known:
            assert list(known["tell"]("What is a pen?")) == ["A tool ", "for writing."]
        elif "ask" in known:
            known["ask"]("What is a pen?")
    capsys.readouterr()
    writer_of(pool).flush()
    rows = fetch(pool, observatory_storage.TraceSpan, "start_time")
    assert {row["status"] for row in rows} == {"unset"}
    # The stream repeats the response of the same id, whose usage counts once.
    assert sum(row["prompt_tokens"] or 0 for row in rows) == 20 + 7
    answered = [row for row in rows if row["trace_id"].hex == TRACEPARENT.split("-")[1]]
    assert [row["name"] for row in answered] == ["answer"]
    assert len(rows) == len(examples("recording.md")[1:]) + 2
