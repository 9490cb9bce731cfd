"""The examples under load, in real hosts that are restarted: each span is stored once.

``SOAK=1`` sends 10,000 requests to each application in each host.
"""

from __future__ import annotations

import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
from celery import Celery

from tests.bouncers import MISSING, PROGRAM, pgbouncer
from tests.hosts.hosting import REPOSITORY, program, running, wait_until
from tests.soak.example_traffic import CLIENTS, Ask, Told, Traffic, asking_over_http, check_stored
from tests.soak.scale import FULL, scaled

REQUESTS = scaled(120, 10_000)
PROCESSES = scaled("2", "4")
EXAMPLES = REPOSITORY / "examples"

GUNICORN = (
    *("gunicorn", "--bind", "127.0.0.1:{port}", "--preload", "--workers", PROCESSES),
    *("--max-requests", "2000", "--max-requests-jitter", "200", "{application}"),
)
UWSGI = (
    *("uwsgi", "--http-socket", "127.0.0.1:{port}", "--master", "--processes", PROCESSES),
    # With its fork hooks, threads of OpenTelemetry's SDK start anew in each worker.
    *(
        "--enable-threads",
        "--py-call-uwsgi-fork-hooks",
        "--module",
        "{application}",
        "--need-app",
        "--virtualenv",
        sys.prefix,
    ),
    *("--hook-master-start", "unix_signal:15 gracefully_kill_them_all"),
    *("--binary-path", sys.executable),  # without it, HUP starts the Python outside
)
CELERY = (
    *("celery", "-A", "tasks", "worker", "--concurrency", PROCESSES),
    *("--max-tasks-per-child", "500"),
    *("--loglevel", "INFO", "--without-mingle"),
)
INSTRUMENTED = ("opentelemetry-instrument", *GUNICORN)


class Example(NamedTuple):
    """The folder of an example, and where its application is."""

    folder: str
    application: str
    instrumented: str = ""  # what `opentelemetry-instrument` starts


FLASK = Example("flask", "chat:app")
DJANGO = Example("django", "chat.wsgi:application")
OTEL = Example("otel", "wsgi:application", "chat:app")


class Served:
    """A host of an example, which can be restarted under load.

    Args:
        command: starts the host.
        folder: of the example, where the command is run.
        is_up: whether the host takes requests.
        settings: the variables of its environment.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        is_up: Callable[[str], bool],
        settings: dict[str, str],
    ) -> None:
        self._command = command
        self._folder = folder
        self._is_up = is_up
        self._settings = settings
        self._started = ExitStack()
        self.outputs: list[str] = []

    def start(self) -> None:
        settings = {**self._settings, "PYTHONPATH": f"{self._folder}:{REPOSITORY}"}
        self._process, self._output = self._started.enter_context(
            running(self._command, settings.pop("DATABASE_URL"), **settings)
        )
        wait_until(lambda: self._is_up(self.output()), self._process, self._output)

    def restart_by_hup(self) -> None:
        self._process.send_signal(signal.SIGHUP)

    def end(self) -> None:
        """Ask the host to end by SIGTERM, and wait until it has."""
        self._process.terminate()
        # Children of Celery wait up to 30 s for their parent to take their last result.
        self._process.wait(120)
        self.outputs.append(self.output())
        self._started.close()

    def kill(self) -> None:
        self._started.close()

    def output(self) -> str:
        """What the host has said; what it said last if it has ended."""
        if not self._output.exists():
            return self.outputs[-1]
        return self._output.read_text(errors="replace")


@contextmanager
def hosted(
    command: Sequence[str],
    folder: Path,
    is_up: Callable[[str], bool],
    **settings: str,
) -> Iterator[Served]:
    host = Served([program(command[0]), *command[1:]], folder, is_up, settings)
    try:
        host.start()
        yield host
    except BaseException:
        print(host.output())
        raise
    finally:
        host.kill()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def accepts(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def load(host: Served, ask: Ask) -> Traffic:
    """Send requests while the host is restarted: by HUP, then by SIGTERM and a new start."""
    traffic = Traffic(ask, REQUESTS)
    began = time.monotonic()
    with traffic.flowing():
        if FULL:
            traffic.wait_for(REQUESTS // 4)
            host.restart_by_hup()
        traffic.wait_for(REQUESTS // 2)
        host.end()
        host.start()
        if FULL:
            traffic.wait_for(REQUESTS * 3 // 4)
            host.restart_by_hup()
    secs = time.monotonic() - began
    host.end()
    spans = sum(traffic.emitted.values())
    print(
        f"{len(traffic.emitted)} answers, {spans} spans, {traffic.broken} broken,"
        f" {traffic.refused} times refused, {secs:.0f} s"
    )
    # SIGTERM resets connections that nobody has accepted yet, and HUP none.
    assert traffic.broken <= CLIENTS
    return traffic


def connections_left(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        ).fetchone()
    assert row is not None
    return int(row[0])


def check_nothing_is_left(host: Served, database_url: str) -> None:
    deadline = time.monotonic() + 20
    while left := connections_left(database_url):  # backends notice the end a moment later
        assert time.monotonic() < deadline, f"{left} connections are left"
        time.sleep(0.05)
    for output in host.outputs:
        assert "Traceback" not in output, output[-4000:]


@contextmanager
def the_way(to: str, database_url: str) -> Iterator[str]:
    """The URL by which an application reaches the database."""
    if to == "directly":
        yield database_url
        return
    if PROGRAM is None:
        pytest.skip(MISSING)
    with pgbouncer(database_url, connections=4) as url:
        yield url
        with psycopg.connect(
            url.replace(database_of(url), "pgbouncer"), autocommit=True
        ) as console:
            clients = console.execute("SHOW CLIENTS").fetchall()
        assert len(clients) == 1, clients  # which asks


def database_of(url: str) -> str:
    return url.rpartition("/")[2].partition("?")[0]


Web = tuple[Example, Sequence[str], str]
# Example, host, how it reaches the database: those of the usual run, and all of a soak.
WEB: list[Web] = [
    (FLASK, GUNICORN, "directly"),
    (OTEL, INSTRUMENTED, "directly"),
    (DJANGO, UWSGI, "pgbouncer"),
]
EVERY_WEB: list[Web] = [
    (example, host, way)
    for example, hosts in (
        (FLASK, (GUNICORN, UWSGI)),
        (DJANGO, (GUNICORN, UWSGI)),
        (OTEL, (GUNICORN, UWSGI, INSTRUMENTED)),
    )
    for host in hosts
    for way in ("directly", "pgbouncer")
]


@pytest.mark.parametrize(
    ("example", "command", "way"),
    [
        pytest.param(*one, id=f"{one[0].folder}-{one[1][0]}-{one[2]}")
        for one in scaled(WEB, EVERY_WEB)
    ],
)
def test_a_web_application(
    example: Example, command: Sequence[str], way: str, database_url: str
) -> None:
    port = free_port()
    application = example.instrumented if command is INSTRUMENTED else example.application
    arguments = [part.format(port=port, application=application) for part in command]
    with (
        the_way(way, database_url) as url,
        hosted(
            arguments,
            EXAMPLES / example.folder,
            lambda _: accepts(port),
            DATABASE_URL=url,
            OTEL_TRACES_EXPORTER="postgresql",
            OTEL_METRICS_EXPORTER="none",
            OTEL_LOGS_EXPORTER="none",
            # Installed for other tests. No example uses these SDKs, which import for seconds.
            OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="anthropic,openai",
        ) as host,
    ):
        traffic = load(host, asking_over_http(port))
    check_stored(database_url, traffic.emitted, traffic.broken)
    check_nothing_is_left(host, database_url)


SUCCEEDED = re.compile(r" succeeded in .*'trace_id': '(\w+)', 'spans': (\d+)")


def asking_tasks(broker: str) -> Ask:
    client = Celery(broker=broker, backend=broker, set_as_current=False)

    def ask(question: str) -> Told:
        told = client.send_task("answer", [question]).get(timeout=120)
        return Told(told["trace_id"], told["spans"])

    return ask


@pytest.mark.parametrize("way", scaled(["directly"], ["directly", "pgbouncer"]))
def test_celery(way: str, database_url: str, redis_url: str, tmp_path: Path) -> None:
    broker = redis_url.replace("unix://", "redis+socket://")
    spool = tmp_path / "spool"
    with (
        the_way(way, database_url) as url,
        hosted(
            CELERY,
            EXAMPLES / "celery",
            lambda output: " ready." in output,
            DATABASE_URL=url,
            BROKER_URL=broker,
            SPOOL_DIR=str(spool),
        ) as host,
    ):
        traffic = load(host, asking_tasks(broker))
    # A task may run twice: Celery gives tasks back to the broker if it cannot acknowledge them
    # before the worker ends. So each run is counted.
    runs = {
        trace_id: int(spans)
        for output in host.outputs
        for trace_id, spans in SUCCEEDED.findall(output)
    }
    print(f"{len(runs) - len(traffic.emitted)} tasks were run again")
    assert runs.items() >= traffic.emitted.items()
    check_stored(database_url, runs)
    check_nothing_is_left(host, database_url)
    assert [*spool.glob("*.spool*")] == []
