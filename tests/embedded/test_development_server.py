"""`python -m observatory_embedded` runs a server, and leads through the first page of the guide."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.embedded.server_owner import eventually, select_value
from tests.pages import DOCS, ROOT, blocks

PAGE = DOCS / "getting-started.md"
SOAK = os.environ.get("SOAK") == "1"
# Programs are on the path before others, and no setting of the tests is in the environment.
BESIDE_PYTHON = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
READY = "PostgreSQL is ready"


def test_the_page_leads_to_a_shown_trace(folder: Path) -> None:
    first, second = blocks(PAGE, "python")
    (folder / "first.py").write_text(first)
    (folder / "look.py").write_text(second)
    assert all(f"`{name}`" in PAGE.read_text() for name in ("first.py", "look.py"))
    install, start, *commands = blocks(PAGE, "sh")
    if SOAK:  # as the page says, from this folder rather than from a registry
        steps = [install.replace("'observatory-storage[embedded]'", f"'{ROOT}[embedded]'")]
        steps.append("cp ../*.py .")
    else:
        steps = []
    steps += [
        start.replace("&", "2> server.log &"),
        f"until grep -q '{READY}' server.log; do kill -0 $! && sleep 0.05; done",
        *commands,
        "kill %1 && wait %1",
    ]
    done = subprocess.run(
        ["bash", "-e", "-m", "-c", "\n".join(steps)],
        cwd=folder,
        env={**BESIDE_PYTHON, "COLUMNS": "82", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (waterfall,) = (text for text in blocks(PAGE, "text") if text.startswith("POST"))
    assert drawn(waterfall) in drawn(done.stdout)
    assert "question-1 POST /ask 16 0.00006\nassistant said Paris.\n" in done.stdout
    assert "ada       1" in done.stdout


def drawn(text: str) -> str:
    """The text without what depends on the time and the width."""
    return re.sub(r"20\d\d-\d\d-\d\d [\d:.]{12} UTC", "TIME", re.sub(r"[ ━]+", " ", text))


def started(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "observatory_embedded", str(folder)],
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


def test_a_refused_folder_is_an_error_of_one_line(folder: Path) -> None:
    (folder / "PG_VERSION").write_text("18\n")
    with started(folder) as server:
        out, error = server.communicate(timeout=60)
    assert (server.returncode, out) == (1, "")
    assert error.startswith(f"Error: {folder} is a data directory of PostgreSQL itself")
