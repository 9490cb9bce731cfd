"""pgbouncer in transaction mode, started for a test."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
MISSING = "pgbouncer is not installed"


@contextmanager
def pgbouncer(url: str, connections: int) -> Iterator[str]:
    """The URL of the database behind a pgbouncer that has so many connections to it."""
    target = conninfo_to_dict(url)
    where = " ".join(
        f"{key}='{target[name]}'"
        for key, name in (
            ("host", "host"),
            ("port", "port"),
            ("user", "user"),
            ("password", "password"),
            ("dbname", "dbname"),
        )
        if target.get(name)
    )
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n{target['dbname']} = {where}\n"
            f"[pgbouncer]\npool_mode = transaction\ndefault_pool_size = {connections}\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            # Clients connect as the user of that line, and may all ask for `SHOW CLIENTS`.
            "auth_type = any\n"
        )
        owner = _owner(str(target.get("host", "")))
        if owner is not None:
            for path in (folder, folder / "pgbouncer.ini"):
                os.chown(path, *owner)
        log = (folder / "log").open("wb")
        with (
            log,
            subprocess.Popen(
                [str(PROGRAM), "pgbouncer.ini"],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=owner and owner[0],
                group=owner and owner[1],
                extra_groups=owner and [],
            ) as process,
        ):
            try:
                _wait_for(port, process, folder / "log")
                yield f"postgresql://anyone@127.0.0.1:{port}/{target['dbname']}?sslmode=disable"
            finally:
                process.terminate()


def _owner(host: str) -> tuple[int, int] | None:
    """The user to run pgbouncer as, since it refuses root. The user can reach the socket."""
    if os.geteuid() != 0:
        return None
    if host.startswith("/"):
        status = Path(host).stat()
        if status.st_uid != 0:
            return status.st_uid, status.st_gid
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.01)
        else:
            return
