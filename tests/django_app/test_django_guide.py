"""docs/django.md, followed word by word."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psycopg
import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import RequestFactory, override_settings

from observatory_storage import StoragePool
from observatory_storage.config import StorageConfig
from observatory_storage.config.application_source import application_settings
from observatory_storage.django.app_settings import app_settings, storage_config
from observatory_storage.django.request_store import RequestStore
from tests.django_app.rows import write_conversation
from tests.test_guide_examples import example_with
from tests.web.mounting import served

GUIDE = (Path(__file__).parents[2] / "docs" / "django.md").read_text("utf-8")
REPOSITORY = str(Path(__file__).parents[2])


def spans_stored(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM observatory.trace_spans").fetchone()
    assert row is not None
    return int(row[0])


def test_an_empty_folder_becomes_a_project_with_a_trace(
    tmp_path: Path, empty_database_url: str
) -> None:
    environment = {**os.environ, "DATABASE_URL": empty_database_url, "PYTHONPATH": REPOSITORY}

    errors = ""

    def run(*arguments: str) -> str:
        nonlocal errors
        ended = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert ended.returncode == 0, ended.stderr
        errors += ended.stderr
        return ended.stdout

    def manage(*arguments: str) -> str:
        assert f"python manage.py {' '.join(arguments)}" in GUIDE
        return run("manage.py", *arguments)

    run("-m", "django", "startproject", "chat", ".")
    written = tmp_path / "chat" / "settings.py"
    written.write_text(written.read_text() + example_with("django.md", "MIDDLEWARE.insert"))
    (tmp_path / "chat" / "urls.py").write_text(example_with("django.md", "def complete"))
    for command in re.findall(r"^python manage\.py (\w*migrate)$", GUIDE, re.MULTILINE):
        manage(command)
    manage("observatory_check")
    assert "W005" not in errors
    command = [sys.executable, str(tmp_path / "manage.py"), "runserver", "{port}", "--noreload"]
    question = "/ask?question=What+is+the+capital+of+France"
    assert question in GUIDE
    with (
        served(command, tmp_path, empty_database_url) as address,
        urlopen(f"{address}{question}", timeout=30) as answer,
    ):
        told: dict[str, Any] = json.loads(answer.read())
        deadline = time.monotonic() + 60
        while not spans_stored(empty_database_url):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert told["answer"] == "Paris."
    shown = run("manage.py", "observatory", "trace", told["trace_id"])
    assert re.search(r"GET /ask chat .*\n└ chat gpt-5 .* 16\n", shown)


@pytest.mark.parametrize(
    "words", ["flush_interval_secs", "timedelta(days=90)", "OBSERVATORY_DATABASE_ALIAS ="]
)
def test_settings_of_the_guide_are_valid(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Any] = {}
    exec(example_with("django.md", words), found)
    chosen = {name: value for name, value in found.items() if name.startswith("OBSERVATORY_")}
    assert chosen
    if "DATABASES" in found:
        from django.db import connections

        monkeypatch.setitem(connections.settings, "telemetry", found["DATABASES"]["telemetry"])
        monkeypatch.setitem(found["DATABASES"]["telemetry"], "OPTIONS", {"sslmode": "require"})
    with override_settings(**chosen):
        assert app_settings().writers.on_full == "drop"
        assert storage_config().postgres.host


def test_all_settings_of_the_app_are_listed() -> None:
    from observatory_storage.django.app_settings import _OWN

    (table,) = re.findall(r"These are the app's own:\n\n(.*?)\n\n", GUIDE, re.DOTALL)
    listed = set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))
    assert listed == {*_OWN, "OBSERVATORY_SCHEMA"}
    named = set(re.findall(r"OBSERVATORY_[A-Z_]+[A-Z]", GUIDE)) - {"OBSERVATORY_RETENTION_TRACE"}
    assert named <= {*application_settings(StorageConfig), *_OWN}


def test_examples_of_the_guide_are_python() -> None:
    for code in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL):
        ast.parse(code)
    assert settings.configured


def test_a_view_of_the_guide_answers_if_requests_are_not_recorded() -> None:
    found: dict[str, Any] = {}
    exec(example_with("django.md", "span.update"), found)
    request = RequestFactory().get("/ask")
    request.observatory = RequestStore(None)
    assert found["ask"](request) is None


def test_texts_of_prompts_are_found_as_the_guide_says(
    project: StoragePool, capsys: pytest.CaptureFixture[str]
) -> None:
    write_conversation(project)
    assert "`manage.py observatory traces --text`" in GUIDE
    call_command("observatory", "--", "traces", "--text", "sky")
    assert "POST /answer" in capsys.readouterr().out
