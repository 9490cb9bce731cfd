"""``manage.py check`` says what is missing."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings
from django.test.utils import setup_test_environment, teardown_test_environment

from observatory_storage import StoragePool
from tests.django_app.project_settings import MIDDLEWARE

OURS = "observatory_storage.django.middleware.ObservatoryMiddleware"
REST = [name for name in MIDDLEWARE if name != OURS]


def checked(*databases: str) -> str:
    """What the command says."""
    output = StringIO()
    try:
        call_command("check", databases=list(databases) or None, stdout=output, stderr=output)
    except CommandError as error:
        return str(error)
    return output.getvalue()


@pytest.mark.usefixtures("project")
def test_a_project_in_order_has_no_issues() -> None:
    assert "no issues" in checked()
    assert "no issues" in checked("default")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"OBSERVATORY_DB_POOL_MAX_CONNECTIONS": 0, "OBSERVATORY_COLOUR": "red"},
            [
                "(observatory.E001) OBSERVATORY_COLOUR: there is no such setting",
                "(observatory.E001) OBSERVATORY_DB_POOL_MAX_CONNECTIONS = 0: must be greater",
            ],
        ),
        (
            {"OBSERVATORY_DATABASE_ALIAS": "other"},
            ["(observatory.E001) DATABASES['other']: its ENGINE is django.db.backends.sqlite3"],
        ),
        (
            {"OBSERVATORY_DATABASE_URL": "postgresql://app@db.internal/telemetry"},
            ["(observatory.W004) The admin shows no traces", "set OBSERVATORY_DATABASE_ALIAS"],
        ),
        (
            {"OBSERVATORY_RECORD_REQUESTS": True, "MIDDLEWARE": REST},
            ["(observatory.W001) OBSERVATORY_RECORD_REQUESTS is True", f"Add '{OURS}'"],
        ),
        ({"MIDDLEWARE": [OURS, *REST, OURS]}, ["(observatory.E003)", "2 times"]),
        (
            {"MIDDLEWARE": [*REST, OURS]},
            ["(observatory.W002)", "stands below django.contrib.sessions.middleware"],
        ),
    ],
)
def test_a_check_says_what_is_wrong(settings: dict[str, Any], told: list[str]) -> None:
    with override_settings(**settings):
        said = checked()
    for each in told:
        assert each in said


@override_settings(OBSERVATORY_DATABASE_ALIAS="other")
def test_tests_may_have_another_database() -> None:
    setup_test_environment()
    try:
        assert "no issues" in checked()
        with override_settings(OBSERVATORY_RECORD_REQUESTS="yes"):
            assert "OBSERVATORY_RECORD_REQUESTS = 'yes'" in checked()
    finally:
        teardown_test_environment()


@pytest.mark.usefixtures("without_zstd")
@override_settings(OBSERVATORY_PAYLOADS="compressed")
def test_a_missing_extra_is_named() -> None:
    said = checked()
    assert "(observatory.E002) OBSERVATORY_PAYLOADS = 'compressed'" in said
    assert "pip install 'observatory-storage[zstd]'" in said


def test_a_missing_extra_for_otlp_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("observatory_storage.django.app_checks.find_spec", lambda _: None)
    with override_settings(OBSERVATORY_OTLP_TOKENS="token"):
        said = checked()
    assert "(observatory.W003) OTLP is received as JSON only" in said
    assert "pip install 'observatory-storage[otel]'" in said


@pytest.mark.usefixtures("new_project")
def test_the_database_is_asked_only_on_request() -> None:
    assert "no issues" in checked()
    assert "no issues" in checked("other")
    said = checked("default")
    assert "(observatory.W005) The store is not migrated: " in said
    assert "migrations of schema 'public'" in said
    assert "Run: manage.py observatory_migrate" in said


def test_a_store_that_cannot_be_reached_is_an_error(project: StoragePool) -> None:
    del project
    from django.db import connections

    entry = connections.settings["default"]
    entry["OPTIONS"] = {"host": "127.0.0.1", "port": "1"}
    entry["NAME"] = "away"
    said = checked_alone()
    assert "(observatory.E004) The store cannot be used" in said


def checked_alone() -> str:
    """What the check of the store says, without those of Django's backend."""
    from observatory_storage.django.app_checks import check_store

    return "\n".join(str(message) for message in check_store(databases=["default"]))
