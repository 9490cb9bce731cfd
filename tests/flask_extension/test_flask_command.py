"""``flask observatory`` runs the command line with the settings of the application."""

from __future__ import annotations

import json
import logging
import subprocess
from inspect import signature
from pathlib import Path

import sqlalchemy as sa
from click.testing import CliRunner
from flask import Flask

from observatory_storage.flask import Observatory
from tests.flask_extension.conftest import MakeApp
from tests.flask_extension.test_extension import span
from tests.hosts.hosting import program

# Before 8.2, click mixes both outputs by default, and a group without a command succeeds.
IS_OLD_CLICK = "mix_stderr" in signature(CliRunner).parameters


def run(app: Flask, *arguments: str) -> tuple[int, str, str]:
    """The exit code, what was printed, and what was printed to standard error."""
    apart = {"mix_stderr": False} if IS_OLD_CLICK else {}
    result = app.test_cli_runner(**apart).invoke(args=["observatory", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_commands_use_the_database_of_the_application(
    make_app: MakeApp, observatory: Observatory, empty_database_url: str
) -> None:
    app = make_app(OBSERVATORY_DATABASE_URL=empty_database_url, OBSERVATORY_SCHEMA="telemetry")
    code, out, _ = run(app, "check")
    assert code == 1
    assert "schema telemetry" in out
    assert "read from app.config: OBSERVATORY_SCHEMA, app.config: OBSERVATORY_DATABASE_URL" in out
    assert "Run: flask observatory migrate" in out
    assert run(app, "migrate")[0] == 0
    with app.app_context():
        observatory.traces.write_span(span("order"))
        observatory.traces.flush()
    code, out, _ = run(app, "traces", "--json")
    assert (code, [json.loads(line)["root_span_name"] for line in out.splitlines()]) == (
        0,
        ["order"],
    )
    code, out, _ = run(app, "maintain")
    assert code == 0
    assert "everything is in order" in run(app, "check")[1]
    with app.app_context():  # a command does not close the pool of the application
        assert len(observatory.uow.traces.list()) == 1


def test_errors_are_a_line_with_advice(make_app: MakeApp) -> None:
    app = make_app(OBSERVATORY_DATABASE_URL="postgresql://app@127.0.0.1:1/shop")
    app.config["OBSERVATORY_DB_RETRY_MAX_ATTEMPTS"] = 1
    code, out, err = run(app, "traces")
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert "Nothing listens on 127.0.0.1 port 1" in err
    assert run(app, "trace", "ff" * 16)[0] == 1
    code, _, err = run(app, "traces", "--limit", "many")
    assert code == 2
    assert "Usage: flask observatory traces" in err
    app.config["OBSERVATORY_CACHE_TIMEOUT_MS"] = "many"
    code, _, err = run(app, "traces")
    assert (code, err) == (
        1,
        "error: app.config: OBSERVATORY_CACHE_TIMEOUT_MS = 'many': must be a whole number\n",
    )


def test_file_of_an_option_is_below_the_application(make_app: MakeApp, tmp_path: Path) -> None:
    (tmp_path / "storage.yaml").write_text("postgres: {schema: other, application_name: of_file}")
    app = make_app(OBSERVATORY_SCHEMA="public")
    code, out, _ = run(app, "check", "--config", "storage.yaml")
    assert code == 0
    assert "schema public" in out
    assert "storage.yaml" in out


def test_own_engine_is_checked(database_url: str) -> None:
    engine = sa.create_engine("postgresql+psycopg://" + database_url.partition("://")[2])
    app = Flask("shop")
    Observatory(app, engine=lambda: engine)
    code, out, _ = run(app, "check")
    assert code == 0, out
    assert f"/{engine.url.database}, schema public" in out
    assert "read from engine\n" in out
    engine.dispose()


def test_help_and_version(app: Flask) -> None:
    code, out, _ = run(app, "--help")
    assert code == 0
    assert "Usage: flask observatory [OPTIONS] COMMAND" in out
    assert run(app, "traces", "--help")[0] == 0
    assert run(app, "--version")[1].startswith("flask observatory ")
    assert run(app)[0] == (0 if IS_OLD_CLICK else 2)
    assert run(app, "nothing")[0] == 2


def test_commands_leave_logging_as_it_is(app: Flask) -> None:
    logger = logging.getLogger("observatory_storage")
    before = list(logger.handlers), logger.level
    assert run(app, "traces", "--log-level", "debug")[0] == 0
    assert (logger.handlers, logger.level) == before


def test_program_of_flask(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from flask import Flask\n"
        "from observatory_storage.flask import Observatory\n"
        "observatory = Observatory()\n"
        "def create_app():\n"
        "    app = Flask('shop')\n"
        f"    app.config['OBSERVATORY_DATABASE_URL'] = {database_url!r}\n"
        "    observatory.init_app(app)\n"
        "    return app\n"
    )
    ended = subprocess.run(
        [program("flask"), "--app", "shop", "observatory", "services", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
