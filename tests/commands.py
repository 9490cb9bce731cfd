"""The command line run within the tests' own process, and telemetry for it to show."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from observatory_storage.cli import main

TRACE = "5b8efff798038103d269b633813fc60c"
OTHER_TRACE = "5b8effffffffffffffffffffffffffff"
FAILED_SPAN = "00000000000000a2"
# The telemetry below is of a fixed day: commands that look at the last day by default need this.
SINCE = ["--since", "2026-06-01"]
# What the three requests below have.
ACCEPTED = {"spans": 5, "data_points": 3, "logs": 3}
# 2026-07-01 12:00:00 UTC
START = 1_782_907_200_000_000_000


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """The output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def document(self) -> Any:
        """The output as one JSON document."""
        return json.loads(self.out)


Run = Callable[..., Result]


def runner(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], folder: Path) -> Run:
    """Runs commands in an empty folder and without settings but those given.

    The variables `columns` and `stdin` of a call are no settings. Without columns the output has
    no width, as in a pipe.
    """
    monkeypatch.chdir(folder)

    def run(
        *arguments: str, columns: int | None = 120, stdin: bytes = b"", **settings: str
    ) -> Result:
        with monkeypatch.context() as patch:
            for name in ("DATABASE_URL", "DB_NAME", "DB_HOST", "DB_PASSWORD", "REDIS_URL"):
                patch.delenv(name, raising=False)
            for name, value in settings.items():
                patch.setenv(name, value)
            if columns is None:
                patch.delenv("COLUMNS", raising=False)
            else:
                patch.setenv("COLUMNS", str(columns))
            patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            capfd.readouterr()
            with logging_as_before(), pytest.raises(SystemExit) as ended:
                main(arguments)
        shown = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return Result(ended.value.code, shown.out, shown.err)

    return run


@contextlib.contextmanager
def logging_as_before() -> Iterator[None]:
    """Undo what a command sets for its whole process, which here is that of other tests too."""
    logger = logging.getLogger("observatory_storage")
    handlers, level = logger.handlers, logger.level
    try:
        yield
    finally:
        logger.handlers = handlers
        logger.setLevel(level)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Poll until the condition holds, as long as the process runs and a minute at most."""
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def resource(service: str) -> dict[str, Any]:
    return {"attributes": attributes({"service.name": service})}


def attributes(values: dict[str, str | int | float]) -> list[dict[str, Any]]:
    names = {str: "stringValue", int: "intValue", float: "doubleValue"}
    return [{"key": key, "value": {names[type(value)]: value}} for key, value in values.items()]


def span(number: int, parent: int | None, start_ms: int, ms: int, **fields: Any) -> dict[str, Any]:
    at = START + start_ms * 1_000_000
    return {
        "traceId": TRACE,
        "spanId": f"{number:016x}",
        "parentSpanId": "" if parent is None else f"{parent:016x}",
        "name": f"step {number}",
        "kind": 1,
        "startTimeUnixNano": str(at + 7),
        "endTimeUnixNano": str(at + ms * 1_000_000 + 7),
        **fields,
    }


def traces_request() -> dict[str, Any]:
    """Two traces whose ids begin alike: one of two services, and one of a lone span."""
    failed = {
        "name": "chat small",
        "kind": 3,
        "status": {"code": 2, "message": "no answer within 15 s"},
        "events": [{"timeUnixNano": str(START + 1), "name": "exception"}],
    }
    called = {
        "name": "chat large",
        "kind": 3,
        "attributes": attributes(
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "acme",
                "gen_ai.request.model": "large",
                "gen_ai.usage.input_tokens": 1200,
                "gen_ai.usage.output_tokens": 34,
                "gen_ai.usage.cost": 0.001234567,
                "user.id": "ada",
                "session.id": "talk-1",
                "gen_ai.prompt": "why is the sky blue",
                "retries": 2,
            }
        ),
    }
    assistant = [
        span(0xA1, None, 0, 2000, name="POST /ask", kind=2),
        span(0xA2, 0xA1, 10, 500, **failed),
        span(0xA3, 0xA1, 600, 1400, **called),
    ]
    in_session = attributes({"session.id": "talk-2"})
    lone = span(0xC1, None, 60_000, 1, traceId=OTHER_TRACE, name="tick", attributes=in_session)
    return {
        "resourceSpans": [
            {"resource": resource("assistant"), "scopeSpans": [{"spans": assistant}]},
            {
                "resource": resource("model-server"),
                "scopeSpans": [{"spans": [span(0xB1, 0xA3, 610, 1300, name="generate"), lone]}],
            },
        ]
    }


def logs_request() -> dict[str, Any]:
    def record(second: int, number: int, text: str, body: Any, **fields: Any) -> dict[str, Any]:
        return {
            "timeUnixNano": str(START + second * 1_000_000_000),
            "severityNumber": number,
            "severityText": text,
            "body": body,
            **fields,
        }

    records = [
        record(0, 9, "INFO", {"stringValue": "asked"}, traceId=TRACE, spanId=f"{0xA1:016x}"),
        record(
            1,
            17,
            "ERROR",
            {"stringValue": "the model [bold]gave up[/bold]\x1b[31m"},
            traceId=TRACE,
            spanId=FAILED_SPAN,
            attributes=attributes({"attempt": 3}),
        ),
        record(
            2, 9, "INFO", {"kvlistValue": {"values": attributes({"size": 5})}}, eventName="done"
        ),
    ]
    return {
        "resourceLogs": [
            {"resource": resource("assistant"), "scopeLogs": [{"logRecords": records}]}
        ]
    }


def metrics_request() -> dict[str, Any]:
    points = [
        {
            "timeUnixNano": str(START + minute * 60_000_000_000),
            "startTimeUnixNano": str(START),
            "asInt": str(10 * (minute + 1)),
            "attributes": attributes({"model": "large"}),
        }
        for minute in range(3)
    ]
    metric = {
        "name": "requests",
        "unit": "{request}",
        "description": "Requests served",
        "sum": {"aggregationTemporality": 1, "isMonotonic": True, "dataPoints": points},
    }
    return {
        "resourceMetrics": [
            {"resource": resource("assistant"), "scopeMetrics": [{"metrics": [metric]}]}
        ]
    }


def rows(url: str) -> dict[str, int]:
    """The numbers of stored rows."""
    tables = {"spans": "trace_spans", "data_points": "metric_data_points", "logs": "logs"}
    with psycopg.connect(url) as connection:
        return {
            name: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # type: ignore[index]  # a count has a row
            for name, table in tables.items()
        }


def lines(*requests: Any) -> bytes:
    """The requests as JSON lines."""
    return b"".join(json.dumps(request).encode() + b"\n" for request in requests)
