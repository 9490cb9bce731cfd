"""Writes the migration that brings the newest schema to the models: ``make revision``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from observatory_embedded import EmbeddedPostgres

_REPOSITORY = Path(__file__).parents[1]


def main() -> None:
    """Compare the models with a new database at the newest revision, and write the difference."""
    (message,) = sys.argv[1:]
    if not message:
        sys.exit('Say what the migration does: make revision MESSAGE="cached tokens"')
    newest = max(path.name for path in (_REPOSITORY / "alembic" / "versions").glob("[0-9]*.py"))
    number = f"{int(newest.partition('_')[0]) + 1:04}"
    with EmbeddedPostgres() as server:
        for arguments in (
            ["upgrade", "head"],
            ["revision", "--autogenerate", "--rev-id", number, "-m", message],
        ):
            subprocess.run(
                [sys.executable, "-m", "alembic", *arguments],
                cwd=_REPOSITORY,
                env={**os.environ, "DATABASE_URL": server.url},
                check=True,
            )


if __name__ == "__main__":
    main()
