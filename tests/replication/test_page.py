"""What docs/more-than-one-machine.md shows and lists."""

from __future__ import annotations

import re
from typing import Any

import click
import pytest

from observatory_storage.cli.main import COMMANDS, commands
from tests.pages import DOCS, blocks
from tests.replication.pairs import Database

PAGE = DOCS / "more-than-one-machine.md"


def test_the_example_runs(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", database.url)
    monkeypatch.setenv("DATABASE_READ_URL", database.read_url)
    (example,) = blocks(PAGE, "python")
    namespace: dict[str, Any] = {"__name__": "page"}
    exec(compile(example, PAGE.name, "exec"), namespace)
    assert capsys.readouterr().out == "True\n1\n"


def test_the_commands_that_read_from_a_replica_are_listed() -> None:
    (line,) = (line for line in PAGE.read_text("utf-8").splitlines() if "`--replica`" in line)
    listed = set(re.findall(r"`(?:observatory-storage )?([a-z]+)`", line))
    context = click.Context(commands)
    found = set()
    for name in COMMANDS:
        command = commands.get_command(context, name)
        assert command is not None
        subcommands = command.commands.values() if isinstance(command, click.Group) else [command]
        if any("--replica" in option.opts for each in subcommands for option in each.params):
            found.add(name)
    assert listed == found
