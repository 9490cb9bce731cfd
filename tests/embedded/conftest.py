"""Fixtures of the tests of embedded servers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from observatory_embedded import (
    FAST_SETTINGS,
    EmbeddedPostgres,
    folders,
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can enter, since the user of the server cannot enter tmp_path."""
    memory = folders.memory_folder(None)  # initdb writes a thousand files, slow on many disks
    made = memory or Path(tempfile.mkdtemp(prefix="observatory-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def shared_server() -> Iterator[EmbeddedPostgres]:
    """A server for tests that neither stop it nor change its data."""
    with EmbeddedPostgres(settings=FAST_SETTINGS, password="ri ght/@:'é") as server:
        yield server
