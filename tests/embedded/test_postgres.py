"""An embedded PostgreSQL: settings, access, stopping and starting."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import psycopg
import pytest

from observatory_embedded import (
    FAST_SETTINGS,
    EmbeddedPostgres,
    EmbeddedServerError,
    embedded_postgres,
    folders,
)
from observatory_storage.errors import ValidationError
from tests.embedded.server_owner import (
    is_running,
    select_value,
)


def test_server_is_postgresql_18_with_utf8_and_utc() -> None:
    with embedded_postgres(settings={"fsync": False, "work_mem": "7MB"}) as url:
        assert select_value(url, "SELECT current_setting('server_version_num')::int / 10000") == 18
        assert select_value(url, "SELECT current_setting('server_encoding')") == "UTF8"
        assert select_value(url, "SELECT current_setting('TimeZone')") == "UTC"
        assert select_value(url, "SELECT current_setting('work_mem')") == "7MB"
        assert select_value(url, "SELECT lower('ÄÉ')") == "äé"


def test_process_and_data_are_gone_after_the_block() -> None:
    with EmbeddedPostgres(settings=FAST_SETTINGS, in_memory=True) as server:
        pid, data = server.pid, server.data_folder
        assert pid is not None
        assert is_running(pid)
    assert not is_running(pid)
    assert not data.parent.exists()
    assert not server.running


def test_server_without_a_password_has_no_tcp_port() -> None:
    with embedded_postgres(settings=FAST_SETTINGS, in_memory=True) as url:
        assert select_value(url, "SELECT current_setting('listen_addresses')") == ""


def test_server_with_a_password_checks_it(shared_server: EmbeddedPostgres) -> None:
    assert "@127.0.0.1:" in shared_server.url
    assert select_value(shared_server.url, "SELECT 1") == 1
    wrong = f"postgresql://postgres:wrong@127.0.0.1:{shared_server.port}/postgres"
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


def test_server_listens_on_the_given_port() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with EmbeddedPostgres(password="secret", port=port, settings=FAST_SETTINGS) as server:
        assert server.port == port
        assert select_value(server.url, "SELECT inet_server_port()") == port


def test_error_names_a_port_that_is_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedServerError, match=str(port)):
            EmbeddedPostgres(password="secret", port=port)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"port": 5432}, "port"),
        ({"port": 70000, "password": "x"}, "70000"),
        ({"password": ""}, "password"),
        ({"settings": {"work mem": 1}}, "work mem"),
        ({"settings": {"port": 1}}, "decided by"),
        ({"path": "/somewhere", "in_memory": True}, "in_memory"),
    ],
)
def test_error_names_an_invalid_argument(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        EmbeddedPostgres(**arguments)  # type: ignore[arg-type]  # wrong on purpose


def test_error_shows_what_the_server_says_about_a_setting() -> None:
    with pytest.raises(EmbeddedServerError, match="no_such_setting"):
        EmbeddedPostgres(settings={"no_such_setting": 1})


def test_server_stops_and_starts_again(embedded_server: EmbeddedPostgres) -> None:
    with psycopg.connect(embedded_server.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS a")
    for mode in ("smart", "fast", "immediate"):
        embedded_server.stop(mode)
        assert not embedded_server.running
        assert embedded_server.pid is None
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(embedded_server.url)
        embedded_server.start()
        assert select_value(embedded_server.url, "SELECT a FROM kept") == 1
    with pytest.raises(ValidationError, match="slow"):
        embedded_server.stop("slow")


def test_killed_server_loses_its_backends_and_starts_again(
    embedded_server: EmbeddedPostgres,
) -> None:
    with psycopg.connect(embedded_server.url, autocommit=True) as connection:
        backend = connection.info.backend_pid
        embedded_server.kill()
        assert not is_running(backend)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    embedded_server.start()
    assert select_value(embedded_server.url, "SELECT 1") == 1


def test_killed_server_leaves_no_shared_memory() -> None:
    with EmbeddedPostgres(settings=FAST_SETTINGS, in_memory=True) as server:
        maps = Path(f"/proc/{server.pid}/maps")
        if not maps.exists():
            pytest.skip("without /proc the server's shared memory cannot be told")
        lines = maps.read_text().splitlines()
        segments = [Path(line.split()[-1]) for line in lines if "/dev/shm/PostgreSQL" in line]
        server.kill()
    assert segments
    assert not any(segment.exists() for segment in segments)


def test_two_servers_run_side_by_side() -> None:
    with (
        embedded_postgres(settings=FAST_SETTINGS, in_memory=True) as one,
        embedded_postgres(settings=FAST_SETTINGS, in_memory=True) as two,
    ):
        assert select_value(
            one, "SELECT system_identifier FROM pg_control_system()"
        ) != select_value(two, "SELECT system_identifier FROM pg_control_system()")


def test_long_temporary_path_is_avoided(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = folder / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with embedded_postgres(settings=FAST_SETTINGS, in_memory=True) as url:
        assert select_value(url, "SELECT 1") == 1
    assert list(long.iterdir()) == []


def test_error_says_how_to_install_a_missing_wheel() -> None:
    with pytest.raises(EmbeddedServerError, match=r"pip install 'observatory-storage\[emb"):
        folders.wheel_folder("a_wheel_that_nobody_made")
