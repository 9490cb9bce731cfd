from __future__ import annotations

from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry._logs import _internal as logs_api
from opentelemetry.metrics import _internal as metrics_api
from opentelemetry.util._once import Once

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


@pytest.fixture
def fresh_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenTelemetry without global providers, which can be set once in a process."""
    for module, name in (
        (trace, "_TRACER_PROVIDER"),
        (metrics_api, "_METER_PROVIDER"),
        (logs_api, "_LOGGER_PROVIDER"),
    ):
        monkeypatch.setattr(module, name, None)
        monkeypatch.setattr(module, f"{name}_SET_ONCE", Once())
