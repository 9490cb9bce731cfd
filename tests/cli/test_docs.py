"""The page about the command line says what the commands print."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from observatory_storage.cli.main import COMMANDS
from tests.commands import Run

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
WIDTH = 100
# What these print depends on the server, the day and what was there before; `serve` does not end.
VARYING = {
    *("check", "migrate", "maintain", "indexes", "retention", "size", "facts", "settle", "serve"),
    "payloads",
    "prices",
    "rollups",
}


def sessions() -> list[tuple[str, str]]:
    """The commands of the page, each with what it prints there."""
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    found = []
    for block in blocks:
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output.rstrip("\n")))
    return found


def test_the_page_names_each_command_and_shows_it() -> None:
    text = PAGE.read_text()
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(COMMANDS)
    assert {shlex.split(command)[1] for command, _ in sessions()} == set(COMMANDS)


def test_commands_print_what_the_page_shows(run_on_filled: Run) -> None:
    for command, output in sessions():
        program, name, *options = shlex.split(command)
        assert program == "observatory-storage"
        if name in VARYING:
            continue
        result = run_on_filled(name, *options, columns=WIDTH)
        shown = (result.out or result.err).rstrip("\n")
        # Before 8.2, click names the shorter option.
        assert shown.replace(" -h' for help", " --help' for help") == output, command
