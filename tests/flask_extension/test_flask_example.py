"""The example under gunicorn: each span that a request reports is stored once."""

from __future__ import annotations

import json
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import psycopg

from tests.hosts.hosting import Host, program, served

EXAMPLE = Path(__file__).parents[2] / "examples" / "flask"
REQUESTS = 30
GUNICORN = (
    *("gunicorn", "-b", "127.0.0.1:{port}", "-w", "2", "--chdir", str(EXAMPLE)),
    *("--preload", "chat:app"),
)


def ask(host: Host) -> dict[str, int]:
    """Ask many questions, some at once: the spans that the application tells of, by trace."""

    def one(number: int) -> tuple[str, int]:
        url = f"http://127.0.0.1:{host.port}/ask?question=refund+{number}"
        with urlopen(url, timeout=60) as answer:
            told = json.load(answer)
        assert told["answer"] == "Refunds take three days."
        return told["trace_id"], told["spans"]

    with ThreadPoolExecutor(4) as clients:
        return dict(clients.map(one, range(REQUESTS)))


def stored(url: str, traces: dict[str, int]) -> Counter[str]:
    """The stored spans by trace, and that each belongs to the span of its request."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT replace(span.trace_id::text, '-', ''), span.name, span.parent_span_id,"
            "       root.span_id"
            "  FROM trace_spans AS span"
            "  JOIN trace_spans AS root"
            "    ON root.trace_id = span.trace_id AND root.kind = 'server'"
        ).fetchall()
    wanted = [row for row in rows if row[0] in traces]
    for _, name, parent, root in wanted:
        assert parent == (None if name == "GET /ask" else root)
    return Counter(trace_id for trace_id, *_ in wanted)


def test_every_span_is_stored_once(database_url: str) -> None:
    with served([program(GUNICORN[0]), *GUNICORN[1:]], database_url) as host:
        traces = ask(host)
        host.process.send_signal(signal.SIGHUP)  # new workers, of the same preloaded application
        traces |= ask(host)
        host.end()
    assert len(traces) == 2 * REQUESTS
    assert stored(database_url, traces) == traces
