"""What the command line loads, and what it says of itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

from observatory_storage.cli.main import COMMANDS, commands

# Each takes long to import, and neither option needs one of them.
HEAVY = {"alembic", "orjson", "psycopg", "pydantic", "redis", "rich", "sqlalchemy", "tenacity"}
RUN_AND_LIST_MODULES = """
import json, sys
from observatory_storage.cli import main
try:
    main([sys.argv[1]])
except SystemExit as ended:
    assert ended.code == 0
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_version_and_help_load_nothing_that_takes_long(option: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", RUN_AND_LIST_MODULES, option],
        cwd=tmp_path,
        capture_output=True,
        check=True,
        text=True,
    )
    assert ended.stdout.startswith(("observatory-storage 0", "Usage: observatory-storage"))
    assert not HEAVY & set(json.loads(ended.stderr))


def test_a_command_ends_without_a_search_for_garbage() -> None:
    program = (
        "import atexit, gc\n"
        "from observatory_storage.cli import main\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 1000))\n"
        "main(['dashboards'])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    assert ended.stdout.endswith("True\n")


def test_the_help_lists_every_command_and_what_it_does() -> None:
    context = click.Context(commands)
    shown = commands.get_help(context)
    for name, summary in COMMANDS.items():
        assert name in shown
        assert summary in shown
        module = import_module(f"observatory_storage.cli.{name}_command")
        command = commands.get_command(context, name)
        assert command is not None
        assert command is module.command
        assert command.name == name
        assert command.help
    modules = Path(str(import_module("observatory_storage.cli").__file__)).parent
    assert {path.name for path in modules.glob("*_command.py")} == {
        f"{name}_command.py" for name in COMMANDS
    }


def test_help_that_nobody_reads_is_no_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "observatory_storage", "--help"]
    ended = subprocess.run(
        command, cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_submodules_are_reached_through_the_package() -> None:
    program = (
        "import observatory_storage as package\n"
        "assert package.errors.NotFound is package.NotFound\n"
        "try:\n"
        "    package.nothing\n"
        "except AttributeError as error:\n"
        "    assert 'nothing' in str(error)\n"
        "else:\n"
        "    raise AssertionError"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
