"""An embedded PostgreSQL whose data directory is kept."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from observatory_embedded import (
    FAST_SETTINGS,
    EmbeddedPostgres,
    EmbeddedServerError,
    embedded_postgres,
    folders,
)
from tests.embedded.server_owner import (
    ServerOwner,
    is_running,
    select_value,
)


def test_data_survive_a_restart(folder: Path) -> None:
    with embedded_postgres(folder / "new" / "data", settings=FAST_SETTINGS) as url:
        select_value(url, "CREATE TABLE kept AS SELECT 'here' AS a; SELECT 1")
    with embedded_postgres(folder / "new" / "data") as url:
        assert select_value(url, "SELECT a FROM kept") == "here"


def test_password_can_be_given_later(folder: Path) -> None:
    with embedded_postgres(folder, settings=FAST_SETTINGS):
        pass
    with embedded_postgres(folder, password="first", settings=FAST_SETTINGS) as url:
        assert select_value(url, "SELECT 1") == 1


def test_error_names_the_processes_that_use_the_folder(folder: Path) -> None:
    with ServerOwner(folder) as owner:
        with pytest.raises(EmbeddedServerError) as caught:
            EmbeddedPostgres(folder)
        assert str(owner.process.pid) in str(caught.value)
        assert str(owner.server) in str(caught.value)
        assert str(folder) in str(caught.value)
        assert is_running(owner.server)


def test_pid_file_of_a_killed_server_is_taken_over(folder: Path) -> None:
    with EmbeddedPostgres(folder, settings=FAST_SETTINGS) as server:
        server.kill()
        assert (server.data_folder / "postmaster.pid").exists()
    with embedded_postgres(folder, settings=FAST_SETTINGS) as url:
        assert select_value(url, "SELECT 1") == 1


def test_pid_file_that_names_another_program_is_removed(folder: Path) -> None:
    with EmbeddedPostgres(folder, settings=FAST_SETTINGS) as server:
        server.kill()
        pid_file = server.data_folder / "postmaster.pid"
    user = folders.server_user()
    with subprocess.Popen(["sleep", "60"], user=user.uid if user else None, cwd="/") as other:
        try:
            lines = pid_file.read_text().splitlines()
            pid_file.write_text("\n".join([str(other.pid), *lines[1:], ""]))
            with embedded_postgres(folder, settings=FAST_SETTINGS) as url:
                assert select_value(url, "SELECT 1") == 1
        finally:
            other.kill()


def test_incomplete_data_directory_is_created_again(folder: Path) -> None:
    (folder / "data.new").mkdir()
    (folder / "data.new" / "PG_VERSION").write_text("18\n")
    with embedded_postgres(folder, settings=FAST_SETTINGS) as url:
        assert select_value(url, "SELECT 1") == 1


def test_data_of_another_major_version_are_refused(folder: Path) -> None:
    with EmbeddedPostgres(folder, settings=FAST_SETTINGS) as server:
        version = server.data_folder / "PG_VERSION"
    version.write_text("12\n")
    with pytest.raises(EmbeddedServerError, match="version 12"):
        EmbeddedPostgres(folder)


def test_data_directory_of_another_server_is_refused(folder: Path) -> None:
    (folder / "PG_VERSION").write_text("15\n")
    with pytest.raises(EmbeddedServerError, match="data directory of PostgreSQL itself"):
        EmbeddedPostgres(folder)


def test_error_names_a_folder_that_cannot_be_written_to(folder: Path) -> None:
    (folder / "lock").mkdir()
    with pytest.raises(EmbeddedServerError, match=f"{folder} cannot be used"):
        EmbeddedPostgres(folder)


def test_path_of_a_file_is_refused(folder: Path) -> None:
    (folder / "file").write_text("")
    with pytest.raises(EmbeddedServerError, match="not a folder"):
        EmbeddedPostgres(folder / "file")
