"""The example of docs/django.md, in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import psycopg
import pytest

from observatory_storage import StoragePool
from tests.hosts.hosting import names_stored, program
from tests.web.mounting import served

EXAMPLE = Path(__file__).parents[2] / "examples" / "django"


def manage(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, run to its end."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=EXAMPLE,
        env={**os.environ, "DATABASE_URL": url, "PYTHONPATH": str(EXAMPLE.parents[1])},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def databases(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        return {name for (name,) in connection.execute("SELECT datname FROM pg_database")}


@pytest.mark.parametrize("options", [(), ("--parallel", "2")])
def test_tests_of_a_project_have_a_store_of_their_own(
    options: tuple[str, ...], database_url: str
) -> None:
    ended = manage(database_url, "test", *options)
    assert ended.returncode == 0, ended.stderr
    assert "Ran 3 tests" in ended.stderr
    assert "not migrated" not in ended.stderr
    assert "WARNING" not in ended.stderr
    assert names_stored(database_url) == {}
    assert not [name for name in databases(database_url) if name.startswith("test_")]


def test_answers_are_stored_with_their_spans(pool: StoragePool, database_url: str) -> None:
    command = [
        *(program("gunicorn"), "--chdir", str(EXAMPLE), "--bind", "127.0.0.1:{port}"),
        *("--preload", "--workers", "2", "chat.wsgi"),
    ]
    with (
        served(command, EXAMPLE, database_url) as address,
        urlopen(f"{address}/ask?question=span+start", timeout=30) as answer,
    ):
        told = json.loads(answer.read())
    with pool.unit_of_work() as uow:
        tree = uow.traces.get_tree(told["trace_id"])
    assert told["answer"] == "A span has a start, an end and attributes."
    assert [(node.depth, node.span.name) for node in tree.nodes] == [
        (0, "GET /ask"),
        (1, "search sentences"),
        (1, "chat sentences"),
    ]
    assert len(tree.nodes) == told["spans"]


def test_the_example_is_in_order(database_url: str) -> None:
    checks = """
from django.core.management import call_command
call_command("check", databases=["default"])
call_command("makemigrations", check_changes=True)
"""
    ended = manage(database_url, "shell", "--verbosity", "0", "--command", checks)
    assert ended.returncode == 0, ended.stderr
    assert "System check identified no issues" in ended.stdout
    assert "No changes detected" in ended.stdout
    assert "observatory" not in ended.stderr + ended.stdout


def test_the_command_line_is_reached_by_manage(database_url: str) -> None:
    ended = manage(database_url, "observatory", "traces", "--since", "yesterday")
    assert ended.returncode == 2
    assert "manage.py observatory" in ended.stderr
