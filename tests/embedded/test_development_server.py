"""`python -m observatory_embedded` runs a server, and leads through the first page of the guide."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import runner
from tests.embedded.server_owner import eventually, select_value
from tests.pages import DOCS, blocks

PAGE = DOCS / "getting-started.md"


def test_the_page_leads_to_a_shown_trace(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The commands run in this process. `tests/soak/test_getting_started.py` runs them as told."""
    programs = dict(zip(("first.py", "look.py"), blocks(PAGE, "python"), strict=True))
    assert all(f"`{name}`" in PAGE.read_text() for name in programs)
    run = runner(monkeypatch, capfd, folder)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    _, start, *commands = blocks(PAGE, "sh")
    assert start == "python -m observatory_embedded database --env-file .env &\n"
    shown = ""
    with started(folder / "database") as server:
        (folder / ".env").write_text(f"DATABASE_URL={url_from(server)}\n")
        for command in "".join(commands).splitlines():
            program, *arguments = shlex.split(command)
            if program == "python":
                exec(compile(programs[arguments[0]], arguments[0], "exec"), {"__name__": "page"})
                shown += capfd.readouterr().out
            else:
                done = run(*arguments, columns=82)
                assert done.code == 0, done.err
                shown += done.out
        server.terminate()
    (waterfall,) = (text for text in blocks(PAGE, "text") if text.startswith("POST"))
    assert drawn(waterfall) in drawn(shown)
    assert shown.endswith("question-1 POST /ask 16 0.00006\nassistant said Paris.\n")


def drawn(text: str) -> str:
    """The text without what depends on the time and the width."""
    return re.sub(r"20\d\d-\d\d-\d\d [\d:.]{12} UTC", "TIME", re.sub(r"[ ━]+", " ", text))


def started(folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "observatory_embedded", str(folder), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def url_from(server: subprocess.Popen[str]) -> str:
    assert server.stdout
    name, _, url = server.stdout.readline().rstrip().partition("=")
    assert name == "DATABASE_URL"
    return url


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda one: one.name)
def test_the_server_ends_with_its_command(folder: Path, number: signal.Signals) -> None:
    with started(folder / "data") as server:
        url = url_from(server)
        assert select_value(url, "CREATE TABLE kept (a int); SELECT 1") == 1
        server.send_signal(number)
        assert server.wait(timeout=60) == 0
        _, _, sockets = url.partition("host=")
        assert eventually(lambda: not Path(sockets).exists())
    with started(folder / "data") as server:
        assert select_value(url_from(server), "SELECT count(*) FROM kept") == 0
        server.terminate()


def test_the_url_is_set_in_a_file_whose_other_lines_stay(folder: Path) -> None:
    file = folder / ".env"
    file.write_text("DB_SCHEMA=telemetry\nDATABASE_URL=postgresql://former/app\nLOG_LEVEL=info")
    file.chmod(0o640)
    with started(folder / "data", "--env-file", str(file)) as server:
        assert server.stderr
        assert server.stderr.readline().startswith("PostgreSQL is ready")
        written = file.read_text()
        *kept, line = written.splitlines()
        assert kept == ["DB_SCHEMA=telemetry", "LOG_LEVEL=info"]
        assert select_value(line.removeprefix("DATABASE_URL="), "SELECT 1") == 1
        assert file.stat().st_mode & 0o777 == 0o640
        with started(folder / "data", "--env-file", str(file)) as second:  # it runs already
            assert second.wait(timeout=60) == 1
        assert file.read_text() == written
        server.terminate()
        assert server.stdout
        assert server.stdout.read() == ""


def test_a_file_for_the_url_that_cannot_be_written_is_named(folder: Path) -> None:
    file = folder / "missing" / ".env"
    with started(folder / "data", "--env-file", str(file)) as server:
        _, error = server.communicate(timeout=60)
    assert server.returncode == 1
    assert error.startswith(f"Error: {file} cannot be written: ")


def test_a_refused_folder_is_an_error_of_one_line(folder: Path) -> None:
    (folder / "PG_VERSION").write_text("18\n")
    with started(folder) as server:
        out, error = server.communicate(timeout=60)
    assert (server.returncode, out) == (1, "")
    assert error.startswith(f"Error: {folder} is a data directory of PostgreSQL itself")
