"""The page for new users, followed literally: from an empty folder, with a new environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pages import DOCS, ROOT, blocks

PAGE = DOCS / "getting-started.md"
LIMIT_SECS = 300  # the page promises less

pytestmark = pytest.mark.skipif(
    os.environ.get("SOAK") != "1", reason="installs the package from this folder, with SOAK=1"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder that the user of the server can enter."""
    made = Path(tempfile.mkdtemp(prefix="observatory-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def test_a_new_user_sees_a_trace(folder: Path) -> None:
    install, start, *commands = blocks(PAGE, "sh")
    steps = [
        install.replace("'observatory-storage[embedded]'", f"'{ROOT}[embedded]'"),
        start.replace("&", "2> server.log &"),
        "until grep -q 'PostgreSQL is ready' server.log; do kill -0 $! && sleep 0.1; done",
    ]
    for name, program in zip(("first.py", "look.py"), blocks(PAGE, "python"), strict=True):
        steps.append(f"cat > {name} <<'PROGRAM'\n{program}PROGRAM")
    done = subprocess.run(
        ["bash", "-e", "-m", "-c", "\n".join([*steps, *commands, "kill %1 && wait %1"])],
        cwd=folder,
        env={"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "POST /ask  assistant  question-1" in done.stdout
    assert done.stdout.endswith("assistant said Paris.\n")
