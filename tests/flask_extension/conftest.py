"""Applications on a database of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from observatory_storage.config import StorageConfig, settings_of
from observatory_storage.flask import Observatory

MakeApp = Callable[..., Flask]


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of the machine."""
    monkeypatch.chdir(tmp_path)
    for setting in settings_of(StorageConfig).values():
        for variable in setting.variables:
            monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def observatory() -> Observatory:
    """An extension without an application."""
    return Observatory()


@pytest.fixture
def make_app(observatory: Observatory, database_url: str) -> Iterator[MakeApp]:
    """Makes applications of `observatory`, by default on `database_url`."""
    made: list[Flask] = []

    def make(**settings: Any) -> Flask:
        app = Flask("shop")
        app.config.update({"TESTING": True, "OBSERVATORY_DATABASE_URL": database_url, **settings})
        observatory.init_app(app)
        made.append(app)
        return app

    yield make
    for app in made:
        with app.app_context():
            observatory.close()


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    """One application of `observatory`."""
    return make_app()
