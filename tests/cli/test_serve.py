"""`serve`: a receiver of its own, from its start to its end by a signal."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from observatory_embedded import EmbeddedPostgres
from observatory_storage import PostgresConfig, StorageConfig, StoragePool
from tests.commands import ACCEPTED, Result, Run, logs_request, rows, runner, traces_request
from tests.hosts.hosting import running, wait_until
from tests.web.exporting import EXPORTED, export

SERVE = (sys.executable, "-m", "observatory_storage", "serve", "--otlp", "--port", "0")
JSON = {"Content-Type": "application/json"}


class Served:
    """A `serve` that accepts connections."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process, self._output = process, output
        wait_until(lambda: "receiving OTLP" in self.output, process, output)
        found = re.search(r"receiving OTLP at (http://\S+) ", self.output)
        assert found is not None
        self.address = found[1]

    @property
    def output(self) -> str:
        return self._output.read_text()

    @contextmanager
    def connected(self) -> Iterator[http.client.HTTPConnection]:
        split = urlsplit(self.address)
        assert split.hostname is not None
        with closing(http.client.HTTPConnection(split.hostname, split.port, timeout=60)) as found:
            yield found

    def post(self, path: str, body: bytes) -> int:
        with self.connected() as connection:
            return post(connection, path, body)

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def served(url: str, *options: str, **settings: str) -> Iterator[Served]:
    with running((*SERVE, *options), url, **settings) as (process, output):
        yield Served(process, output)


def post(connection: http.client.HTTPConnection, path: str, body: bytes, **headers: str) -> int:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", path, body, JSON | given)
    with connection.getresponse() as answer:
        answer.read()
        return answer.status


@pytest.mark.parametrize(
    ("number", "options"),
    [(signal.SIGTERM, ()), (signal.SIGINT, ("--host", "localhost"))],
    ids=["SIGTERM", "SIGINT on localhost"],
)
def test_exporters_send_until_a_signal_ends_it(
    database_url: str, number: int, options: tuple[str, ...]
) -> None:
    with served(database_url, *options) as server:
        assert options or server.address.startswith("http://127.0.0.1:")
        export(server.address)
        assert rows(database_url) == EXPORTED
        assert server.end(number) == 0
        assert server.output.splitlines() == [
            f"receiving OTLP at {server.address} without a token; Ctrl-C ends it"
        ]


def test_a_connection_takes_many_requests_and_recovers_from_refused_ones(
    database_url: str,
) -> None:
    body = json.dumps(traces_request()).encode()
    with served(database_url, "--max-body-bytes", str(len(body))) as server:
        with server.connected() as connection:
            assert post(connection, "/v1/traces", body) == 200
            assert post(connection, "/v1/nothing", body) == 404
            connection.request("GET", "/metrics")  # answered with --health alone
            with connection.getresponse() as answer:
                answer.read()
                assert answer.status == 404
            assert post(connection, "/v1/traces", body[:-1]) == 400
            assert post(connection, "/v1/traces", body + b" ") == 413
            assert (
                post(connection, "/v1/traces", gzip.compress(body), Content_Encoding="gzip") == 200
            )
            bomb = gzip.compress(bytes(10_000_000))
            assert post(connection, "/v1/traces", bomb, Content_Encoding="gzip") == 413
            # A chunked body; the rest of a refused one must not be taken for a request.
            for path, status in (("/v1/traces", 200), ("/v1/nothing", 404), ("/v1/traces", 200)):
                try:
                    connection.request(
                        "POST", path, iter([body[:9], body[9:]]), JSON, encode_chunked=True
                    )
                    with connection.getresponse() as answer:
                        answer.read()
                        assert answer.status == status
                except ConnectionError:  # closed before all of a refused body was sent
                    assert status == 404
                    connection.close()
        assert "answered 413" in server.output
        assert server.end(signal.SIGTERM) == 0
    assert rows(database_url)["spans"] == ACCEPTED["spans"]


def test_request_is_answered_before_the_end(database_url: str) -> None:
    with psycopg.connect(database_url) as blocking, served(database_url) as server:
        blocking.execute("LOCK TABLE logs IN ACCESS EXCLUSIVE MODE")
        answers: list[int] = []
        body = json.dumps(logs_request()).encode()
        sender = threading.Thread(target=lambda: answers.append(server.post("/v1/logs", body)))
        sender.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'logs'::regclass"
        with psycopg.connect(database_url, autocommit=True) as watching:
            while watching.execute(waiting).fetchone() == (0,):
                assert sender.is_alive()
                time.sleep(0.02)
            server.process.send_signal(signal.SIGTERM)
            while is_open(server.address):
                time.sleep(0.02)
        assert not answers
        assert server.process.poll() is None
        blocking.rollback()
        sender.join(60)
        assert answers == [200]
        assert server.process.wait(60) == 0
    assert rows(database_url)["logs"] == ACCEPTED["logs"]


def is_open(address: str) -> bool:
    split = urlsplit(address)
    with socket.socket() as trying:
        return trying.connect_ex((split.hostname, split.port)) == 0


def test_the_token_comes_from_the_environment(database_url: str) -> None:
    with served(database_url, "--host", "0.0.0.0", OTLP_TOKEN="t0ken") as server:
        export(server.address, headers={"Authorization": "Bearer other"})
        assert rows(database_url) == dict.fromkeys(EXPORTED, 0)
        export(server.address, headers={"Authorization": "bearer t0ken"})
        assert rows(database_url) == EXPORTED
        assert f"{server.address} with a token; " in server.output
        assert "t0ken" not in server.output
        assert "warning" not in server.output


def test_server_starts_and_waits_for_the_database(embedded_server: EmbeddedPostgres) -> None:
    config = StorageConfig(postgres=PostgresConfig.from_url(embedded_server.url))
    with StoragePool(config) as pool:
        pool.run_migrations()
    embedded_server.stop()
    body = json.dumps(logs_request()).encode()
    with served(embedded_server.url, DB_RETRY_MAX_ATTEMPTS="1") as server:
        assert server.post("/v1/logs", body) == 503
        embedded_server.start()
        assert server.post("/v1/logs", body) == 200
        assert "answered 503 to POST '/v1/logs': ConnectionLost" in server.output


def test_anybody_who_may_send_is_warned_of(database_url: str) -> None:
    with served(database_url, "--host", "0.0.0.0") as server:
        wait_until(lambda: "warning: anybody" in server.output, server.process, server._output)


def test_error_names_an_address_that_is_in_use(database_url: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with running((*SERVE, "--port", str(port)), database_url) as (process, output):
            assert process.wait(60) == 1
            error = output.read_text()
    assert f"cannot listen on 127.0.0.1:{port}: " in error
    assert "in use" in error


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs commands for which there is no database."""
    bare = runner(monkeypatch, capfd, tmp_path)

    def run(*arguments: str, **given: object) -> Result:
        return bare(*arguments, **{"DATABASE_URL": "postgresql://u@127.0.0.1:1/a", **given})

    return run


@pytest.mark.parametrize(
    ("options", "settings", "code", "error"),
    [
        ((), {}, 2, "say what to serve: --otlp"),
        (("--otlp", "--token", "two words"), {}, 1, "token: must be"),
        (("--otlp",), {"OTLP_TOKEN": "\u00fc"}, 1, "token: must be"),
        (("--otlp", "--threads", "0"), {}, 2, "--threads"),
        (("--otlp", "--port", "65536"), {}, 2, "--port"),
        (("--otlp", "--max-body-bytes", "0"), {}, 2, "--max-body-bytes"),
    ],
)
def test_wrong_options(
    run: Run, options: tuple[str, ...], settings: dict[str, str], code: int, error: str
) -> None:
    result = run("serve", *options, **settings)
    assert result.code == code
    assert error in result.err
    for secret in (*options[2:], *settings.values()):
        assert code == 2 or secret not in result.err


def test_error_names_the_missing_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "observatory_storage.web.otlp_server", raising=False)
    monkeypatch.setitem(sys.modules, "cheroot.wsgi", None)
    result = run("serve", "--otlp")
    assert result.code == 1
    assert "pip install 'observatory-storage[serve]'" in result.err


def test_health_is_answered_beside_otlp(database_url: str) -> None:
    with served(database_url, "--health", "--token", "secret") as receiver:
        for path, part in (
            ("/health", b'"healthy"'),
            ("/health/live", b"true"),
            ("/health/ready", b"true"),
            ("/metrics", b"storage_pool_connections"),
        ):
            with receiver.connected() as connection:
                connection.request("GET", path)
                answer = connection.getresponse()
                assert (answer.status, part in answer.read()) == (200, True)
        assert receiver.post("/v1/traces", b"{}") == 401
        assert receiver.end(signal.SIGTERM) == 0
