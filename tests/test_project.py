"""The wheel, the Makefile, and the databases of the tests."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import psycopg
import pytest

import observatory_storage
from tests.servers import RUN, Server

REPOSITORY = Path(__file__).parent.parent
TARGETS = [
    *("help", "demo", "test", "test-lowest", "test-newest", "bench", "bench-all", "bench-read"),
    *("soak", "check", "recordings", "docs", "migrate", "revision", "clean"),
]

# Runs with the unpacked wheel, outside of the checkout.
INSTALLED = """
import datetime, sys
sys.path.insert(0, sys.argv[1])
import observatory_storage
from observatory_storage import LogRecord, LogWriter, StoragePool, migrate
assert observatory_storage.__file__.startswith(sys.argv[1]), observatory_storage.__file__
with StoragePool.from_env() as pool:
    pool.run_migrations()
    assert migrate.current(pool.engine) == migrate.head()
    with LogWriter(pool) as writer:
        writer.write_log({"timestamp": datetime.datetime.now(datetime.UTC), "body": "by the wheel"})
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    subprocess.run(
        [*command, "--directory", str(folder)], cwd=REPOSITORY, check=True, capture_output=True
    )
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_contains_only_the_packages_and_the_migrations(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    migrations = {path.name for path in (REPOSITORY / "alembic" / "versions").glob("*.py")}
    assert migrations
    assert {f"observatory_storage/_alembic/versions/{name}" for name in migrations} <= set(names)
    assert "observatory_storage/_alembic/env.py" in names
    assert "observatory_storage/py.typed" in names
    assert "observatory_storage/grafana/llm-telemetry.json" in names
    assert {name.partition("/")[0] for name in names} == {
        "observatory_embedded",
        "observatory_storage",
        f"observatory_storage-{_project()['version']}.dist-info",
    }
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_installed_wheel_migrates_and_writes(
    wheel: Path, tmp_path: Path, empty_database_url: str
) -> None:
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    subprocess.run(
        [sys.executable, "-c", INSTALLED, str(installed)],
        cwd=tmp_path,
        env={"PATH": os.defpath, "DATABASE_URL": empty_database_url},
        check=True,
    )
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT body FROM logs").fetchall() == [("by the wheel",)]


def test_project_has_its_extras_and_script() -> None:
    project = _project()
    extras = {
        *("otel", "flask", "django", "celery", "serve"),
        *("prometheus", "zstd", "prices", "arrow", "embedded", "docs", "dev"),
    }
    assert set(project["optional-dependencies"]) == extras
    assert project["scripts"] == {"observatory-storage": "observatory_storage.cli:main"}
    assert project["name"] == "observatory-storage"


def test_make_without_a_target_lists_all_targets() -> None:
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    shown = subprocess.run(
        ["make", "--no-print-directory"],
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"]},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert [line.split()[1] for line in shown.splitlines()] == TARGETS


def test_paths_and_modules_that_the_makefile_names_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    paths = re.findall(r"\btests/[\w/.]+", makefile)
    assert "tests/soak" in paths
    assert [path for path in paths if not (REPOSITORY / path).exists()] == []
    modules = re.findall(r"-m ((?:tests|observatory)[\w.]*)", makefile)
    assert "observatory_storage.demo" in modules
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []


def test_continuous_integration_can_be_run() -> None:
    assert os.access(REPOSITORY / ".ci" / "run", os.X_OK)


def test_all_public_names_exist() -> None:
    missing = [
        name for name in observatory_storage.__all__ if not hasattr(observatory_storage, name)
    ]
    assert missing == []


def test_each_test_has_a_database_of_its_own(
    postgres_server: Server, database_url: str, empty_database_url: str
) -> None:
    names = set()
    for url, tables in ((database_url, True), (empty_database_url, False)):
        with psycopg.connect(url) as connection:
            row = connection.execute(
                "SELECT current_database(), current_setting('server_encoding'),"
                " to_regclass('public.traces') IS NOT NULL"
            ).fetchone()
        assert row is not None
        assert row[1:] == ("UTF8", tables)
        names.add(str(row[0]))
    assert len(names) == 2
    assert all(name.startswith(RUN) for name in names)
    with postgres_server.administration() as connection:
        ours = connection.execute(
            "SELECT count(*) FROM pg_database WHERE datname LIKE %s", (f"{RUN}%",)
        ).fetchone()
    assert ours is not None
    assert int(str(ours[0])) <= 4  # these two, the template, and its base if there is one


def _project() -> dict[str, Any]:
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        project: dict[str, Any] = tomllib.load(file)["project"]
    return project
