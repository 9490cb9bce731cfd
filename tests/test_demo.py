"""A smaller run of the demo: what it emits and shows, and that it reports a missing row."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from rich.console import Console
from sqlalchemy import delete, select
from sqlalchemy.orm import InstrumentedAttribute

from observatory_storage import LogRecord, MetricDataPoint, StoragePool, TraceEvent, TraceSpan
from observatory_storage.demo import demonstration as demo
from observatory_storage.demo.__main__ import main
from observatory_storage.demo.application import Application
from observatory_storage.demo.counts import Counts, differences
from observatory_storage.demo.model import MODELS, LanguageModel, tokenize
from observatory_storage.demo.outbox import Outbox
from observatory_storage.demo.questions import ask
from observatory_storage.demo.retrieval import Shard, load_passages
from observatory_storage.demo.stored import stored_counts
from observatory_storage.demo.tools import ToolArgumentError, calculate
from tests.commands import wait_for
from tests.servers import Server

UNTIL = datetime(2026, 7, 1, 12, tzinfo=UTC)
TRACES = 40
DEMO = [sys.executable, "-m", "observatory_storage.demo", "--traces", "12"]


def quiet() -> Console:
    return Console(file=io.StringIO(), width=100)


def emitted(traces: int) -> Counts:
    """The counts of what the application emits, without storing it."""
    outbox = Outbox()
    application = Application(outbox, traces=traces, until=round(UNTIL.timestamp() * 1e9), seed=1)
    for _ in application.run():
        pass
    application.shutdown()
    return outbox.emitted.counts()


@pytest.fixture
def filled(pool: StoragePool) -> tuple[StoragePool, Counts]:
    """A pool with the stored telemetry of the application, and the emitted counts."""
    return pool, demo.emit(pool, quiet(), traces=TRACES, seed=1, until=UNTIL)


def test_emitted_telemetry_covers_all_kinds() -> None:
    counts = emitted(500)
    assert len(counts.traces) == 500
    assert counts.spans["links"] > 0
    assert counts.spans["status error"] > 20
    assert {key for key in counts.spans if key.startswith("service")} == {
        "service gateway",
        "service assistant",
        "service retriever",
        "service model-server",
    }
    assert counts.tokens.keys() == counts.costs.keys() == MODELS.keys()
    assert all(counts.costs.values())
    severities = {"severity INFO", "severity WARNING", "severity ERROR"}
    assert severities <= counts.logs.keys()
    assert counts.logs["event gen_ai.evaluation.result"] > 400
    kinds = {name.partition("(")[2].rstrip(")") for name in counts.points}
    assert kinds == {"counter", "updowncounter", "gauge", "histogram", "exponential_histogram"}


def test_runs_with_the_same_seed_emit_the_same() -> None:
    assert emitted(TRACES) == emitted(TRACES)


def test_stored_counts_equal_emitted_counts(filled: tuple[StoragePool, Counts]) -> None:
    pool, counts = filled
    with pool.unit_of_work() as work:
        assert differences(counts, stored_counts(work.session)) == []


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (TraceSpan.span_id, "spans, spans: emitted"),
        (TraceEvent.span_id, "spans, events: emitted"),
        (LogRecord.id, "logs, records: emitted"),
        (MetricDataPoint.id, "points, "),
    ],
)
def test_a_missing_row_is_named(
    filled: tuple[StoragePool, Counts], key: InstrumentedAttribute[object], expected: str
) -> None:
    pool, counts = filled
    with pool.unit_of_work() as work:
        model = key.class_
        victim = work.session.scalars(select(key).order_by(key).limit(1)).one()
        work.session.execute(delete(model).where(key == victim))
        work.commit()
        found = differences(counts, stored_counts(work.session))
    assert [line for line in found if line.startswith(expected)]


def test_exit_code_when_a_row_is_missing(
    postgres_server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def lose(pool: StoragePool, *_: object) -> None:
        with pool.unit_of_work() as work:
            work.session.execute(delete(LogRecord).where(LogRecord.severity_text == "INFO"))
            work.commit()

    monkeypatch.setenv("DATABASE_URL", postgres_server.url)
    monkeypatch.setattr(demo, "ask", lose)
    with pytest.raises(SystemExit) as ended:
        main(["--traces", "3"])
    assert ended.value.code == 1
    shown = capfd.readouterr().out
    assert "What is stored is not what was emitted" in shown
    assert "logs, severity INFO: emitted" in shown
    assert databases(postgres_server) == set()


@pytest.mark.parametrize("columns", [80, 120])
def test_questions_get_answers(filled: tuple[StoragePool, Counts], columns: int) -> None:
    pool, counts = filled
    console = Console(file=io.StringIO(), width=columns)
    ask(pool, console, datetime(2026, 6, 26, tzinfo=UTC), datetime(2026, 7, 2, tzinfo=UTC))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert max(len(line) for line in shown.splitlines()) <= columns
    answers = [answer.splitlines() for answer in shown.strip().split("\n\n")]
    assert [answer[0] for answer in answers] == [
        "Slowest traces",
        "A trace that failed, as a waterfall",
        "Cost and tokens by model",
        "Latency of the gateway by hour (UTC)",
        'Errors that say "gave up"',
        "The log of that trace",
    ]
    assert all(len(answer) > 2 for answer in answers)
    total = sum(counts.costs.values())
    assert answers[2][-1].split() == [f"${total:.4f}"]


def test_demo_runs_on_its_own_server(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "DATABASE_URL"}
    ended = subprocess.run(
        DEMO, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    assert "Every count of what was emitted is that of what is stored." in ended.stdout


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_leaves_nothing(
    postgres_server: Server, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    process = subprocess.Popen(
        [*DEMO[:-1], "2000"],
        cwd=tmp_path,
        env={**os.environ, "DATABASE_URL": postgres_server.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with postgres_server.administration() as connection:
        wait_for(lambda: bool(databases(postgres_server, connection)), process)
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert (out, err.strip()) == (b"", b"")
    assert databases(postgres_server) == set()


def test_error_for_an_invalid_url_shows_no_secret(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://me:hunter2@localhost/x")
    with pytest.raises(SystemExit) as ended:
        main(["--traces", "3"])
    assert ended.value.code == 1
    shown = capfd.readouterr()
    assert "error: " in shown.err
    assert "hunter2" not in shown.err + shown.out


def test_retrieval_finds_the_passage() -> None:
    shards = {name: Shard(passages) for name, passages in load_passages().items()}
    assert set(shards) == {"charters", "fables", "sonnets", "speeches"}
    best = shards["fables"].search("Who is to bell the cat?")
    assert best[0].passage.title == "Belling the Cat"
    assert [hit.score for hit in best] == sorted((hit.score for hit in best), reverse=True)
    assert shards["fables"].search("zigzag") == []


def test_model_is_deterministic_and_counts_its_tokens() -> None:
    texts = [passage.text for passage in load_passages()["fables"]]
    model = LanguageModel(MODELS["quill-large"], texts)
    answer = model.complete("Who is to bell the cat?", 40)
    assert answer == model.complete("Who is to bell the cat?", 40)
    assert answer.prompt_tokens == 7
    assert answer.completion_tokens == len(tokenize(answer.text)) <= 40
    assert MODELS["quill-large"].cost(1_000_000, 100_000) == (Decimal("2.5"), Decimal(1))


@pytest.mark.parametrize("expression", ["1 /", "1 / 0", "__import__('os')", "'a' * 9", "9 ** 9"])
def test_calculator_refuses_all_but_sums(expression: str) -> None:
    with pytest.raises(ToolArgumentError, match="cannot calculate"):
        calculate(expression)
    assert calculate("3 * (7 + 1) - 4 / 2") == 22


def databases(
    server: Server, connection: psycopg.Connection[tuple[object, ...]] | None = None
) -> set[str]:
    """The databases of the demo on the server."""
    if connection is None:
        with server.administration() as own:
            return databases(server, own)
    rows = connection.execute(
        "SELECT datname FROM pg_database WHERE datname LIKE 'observatory_demo_%'"
    )
    return {str(row[0]) for row in rows}
