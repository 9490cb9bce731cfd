from __future__ import annotations

from pathlib import Path

import pytest

from observatory_storage import shared_pool as sharing
from observatory_storage.config import StorageConfig, settings_of


@pytest.fixture
def fresh_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without settings, in an empty directory, and no shared pool yet."""
    for setting in settings_of(StorageConfig).values():
        for variable in setting.variables:
            monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sharing, "_shared", [])
