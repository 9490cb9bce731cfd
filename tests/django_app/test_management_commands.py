"""``manage.py observatory_…``: the command line with the settings of the project."""

from __future__ import annotations

import json
import logging
from io import StringIO
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from observatory_storage import StoragePool
from tests.django_app.rows import TRACE, write_conversation


def called(command: str, *arguments: str, **options: Any) -> str:
    """What the command prints."""
    output = StringIO()
    call_command(command, *arguments, stdout=output, **options)
    return output.getvalue()


def tables(url: str, schema: str) -> set[str]:
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = %s", [schema]
        )
        return {name for (name,) in found}


@override_settings(OBSERVATORY_SCHEMA="telemetry")
def test_the_store_and_django_migrate_beside_each_other(new_project: str) -> None:
    assert "schema telemetry: no revision -> 0" in called("observatory_migrate")
    assert "traces" in tables(new_project, "telemetry")
    assert tables(new_project, "public") == set()
    store = tables(new_project, "telemetry")
    call_command("migrate", verbosity=0)
    assert "django_migrations" in tables(new_project, "public")
    assert tables(new_project, "telemetry") == store
    assert "already at the newest revision" in called("observatory_migrate")
    called("flush", interactive=False)
    assert tables(new_project, "telemetry") == store


@override_settings(OBSERVATORY_SCHEMA="public")
def test_both_may_share_a_schema(new_project: str) -> None:
    call_command("migrate", verbosity=0)
    called("observatory_migrate")
    assert {"django_migrations", "traces", "auth_user"} <= tables(new_project, "public")
    assert "everything is in order" in called("observatory_check")


@pytest.mark.usefixtures("new_project")
def test_django_has_nothing_to_migrate_for_the_models_of_views() -> None:
    assert "No changes detected" in called("makemigrations", check=True, dry_run=True)
    assert "observatory" not in called("showmigrations")


@pytest.mark.usefixtures("new_project")
def test_check_fails_with_what_is_wrong_and_what_to_run() -> None:
    output = StringIO()
    with pytest.raises(CommandError, match="the store is not in order") as error:
        call_command("observatory_check", stdout=output)
    assert error.value.returncode == 1
    assert "✗ migrations" in output.getvalue()
    assert "Run: manage.py observatory_migrate" in output.getvalue()
    assert "read from OBSERVATORY_" in output.getvalue()


@pytest.mark.usefixtures("project")
def test_check_names_commands_and_settings_of_the_project() -> None:
    told = called("observatory_check")
    assert "not used (OBSERVATORY_REDIS_URL is not set)" in told
    assert "`manage.py observatory_maintain` every minute" in told


@pytest.mark.usefixtures("project")
def test_options_are_those_of_django_and_of_the_command() -> None:
    told = json.loads(called("observatory_check", json=True))
    assert told["ok"] is True
    assert called("observatory_check", verbosity=0) == ""
    assert "make_partitions_ahead" in called("observatory_maintain", duration="60s")
    assert json.loads(called("observatory_maintain", json=True))["is_skipped"] is False
    with pytest.raises(CommandError, match=r"'--for'.*soon") as error:
        called("observatory_maintain", duration="soon")
    assert error.value.returncode == 2


def test_a_wrong_setting_is_told_as_django_tells_it() -> None:
    with (
        override_settings(OBSERVATORY_DATABASE_ALIAS="other"),
        pytest.raises(CommandError, match="the store needs PostgreSQL") as error,
    ):
        called("observatory_migrate")
    assert error.value.returncode == 1


@override_settings(
    OBSERVATORY_DATABASE_URL="postgresql://127.0.0.1:1/away", OBSERVATORY_DATABASE_ALIAS=None
)
def test_a_failure_comes_with_advice() -> None:
    with pytest.raises(CommandError, match=r"(?s)port 1.*\n.*start PostgreSQL"):
        called("observatory_migrate")


@pytest.mark.usefixtures("project")
def test_logging_of_a_process_that_calls_a_command_does_not_change() -> None:
    logger = logging.getLogger("observatory_storage")
    before = (list(logger.handlers), logger.level)
    called("observatory_check", verbosity=3)
    assert (list(logger.handlers), logger.level) == before


def test_the_whole_command_line_has_the_settings_of_the_project(
    project: StoragePool, capfd: pytest.CaptureFixture[str]
) -> None:
    write_conversation(project)
    call_command("observatory", "trace", TRACE)
    assert "chat large" in capfd.readouterr().out
    with pytest.raises(CommandError) as error:
        call_command("observatory", "trace", "1" * 32)
    assert error.value.returncode == 1
    assert "no trace" in capfd.readouterr().err
