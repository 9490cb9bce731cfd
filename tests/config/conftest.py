"""These tests do not see the settings of the machine that they run on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from observatory_storage.config import StorageConfig, settings_of
from observatory_storage.errors import ConfigError

Environment = Callable[..., None]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Environment:
    """An environment without settings, in an empty directory. Call it to set variables."""
    for setting in settings_of(StorageConfig).values():
        for variable in setting.variables:
            monkeypatch.delenv(variable, raising=False)
    monkeypatch.delenv("PGSSLROOTCERT", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def set_variables(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_variables


def problems(build: Callable[[], object]) -> str:
    """The message of the ConfigError."""
    with pytest.raises(ConfigError) as caught:
        build()
    return str(caught.value)
