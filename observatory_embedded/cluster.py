"""The data directory of PostgreSQL: the commands that create and use it, and its pid file."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path

from observatory_storage.errors import ValidationError

Setting = str | int | float | bool

FAST_SETTINGS: Mapping[str, Setting] = {
    "fsync": False,
    "full_page_writes": False,
}
"""Settings for temporary data. The data survive a crash of the server, but not of the machine."""

ROLE = "postgres"
ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}
# Settings that `EmbeddedPostgres` sets itself.
_OURS = {"listen_addresses", "unix_socket_directories", "hba_file", "port", "data_directory"}
_SETTING_NAME = re.compile(r"[a-z_][a-z0-9_.]*", re.IGNORECASE)


def initdb_command(programs: Path, data_folder: Path, *, sync: bool) -> list[str]:
    """The command that creates a data directory in an empty folder."""
    command = [str(programs / "initdb"), "-D", str(data_folder), "-U", ROLE, "--encoding=UTF8"]
    # C.UTF-8 of the builtin provider is the same on every machine, whatever its libc.
    command += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    command += ["--auth=trust", "--no-instructions"]
    return command if sync else [*command, "--no-sync"]


def copy_command(
    programs: Path, data_folder: Path, sockets: Path, port: int, *, sync: bool
) -> list[str]:
    """The command that copies a running server to an empty folder, as a standby of it."""
    command = [str(programs / "pg_basebackup"), "-D", str(data_folder), "-U", ROLE]
    command += ["-h", str(sockets), "-p", str(port), "--write-recovery-conf"]
    command += ["--checkpoint=fast", "--wal-method=stream"]
    return command if sync else [*command, "--no-sync"]


def server_command(programs: Path, data_folder: Path, settings: Mapping[str, Setting]) -> list[str]:
    """The command that runs the server in the foreground."""
    command = [str(programs / "postgres"), "-D", str(data_folder)]
    for name, value in settings.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        command += ["-c", f"{name}={text}"]
    return command


def check(password: str | None, port: int | None, settings: Mapping[str, Setting]) -> None:
    """Raise a ValidationError for an invalid argument."""
    if password is not None and (not password or "\0" in password):
        raise ValidationError("password", "***", "must not be empty, nor contain NUL")
    if port is not None and password is None:
        raise ValidationError("port", port, "needs a password: a TCP port is open to all users")
    if port is not None and not 1 <= port <= 65535:
        raise ValidationError("port", port, "must be between 1 and 65535")
    for name in settings:
        if not _SETTING_NAME.fullmatch(name):
            raise ValidationError("settings", name, "must be names of PostgreSQL settings")
        if name.lower() in _OURS:
            raise ValidationError("settings", name, "is decided by the embedded server itself")


def pid_in(data_folder: Path) -> int | None:
    """The process id in the pid file, whether the process is running or not."""
    try:
        return int((data_folder / "postmaster.pid").read_text().partition("\n")[0])
    except (OSError, ValueError):
        return None


def is_ready(data_folder: Path, pid: int | None) -> bool:
    """Whether the server with this process id accepts connections."""
    try:
        lines = (data_folder / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    # The eighth line is the state. Before it is written, the file may be of a former server.
    return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"


def remove_stale_pid_file(data_folder: Path) -> None:
    """Remove the pid file of a crashed server if another program has its process id now.

    PostgreSQL takes over a pid file whose process is gone, but it assumes that any process of the
    same user is a server. This process holds the lock of the folder, so the only server that may
    still run is one whose supervisor was killed. Its working directory is the data directory.
    """
    pid = pid_in(data_folder)
    folder = Path(f"/proc/{pid}/cwd")
    if pid is None or not folder.is_symlink():
        return
    if folder.resolve() != data_folder.resolve():
        (data_folder / "postmaster.pid").unlink(missing_ok=True)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
