"""docs/flask.md: its examples run, and its settings and names are those of the extension."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request

import observatory_storage.flask as public
from observatory_storage import ConfigError
from observatory_storage.flask import Observatory
from observatory_storage.flask.extension_settings import ExtensionSettings
from tests.web.mounting import example

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "flask.md").read_text("utf-8")
REFERENCE = (DOCS / "reference" / "flask.md").read_text("utf-8")


def run(words: str, **names: Any) -> dict[str, Any]:
    """What the example with these words defines."""
    namespace = {"__name__": "chat", **names}
    exec(compile(example("flask.md", words), "flask.md", "exec"), namespace)
    return namespace


def invoke(app: Flask, *arguments: str) -> str:
    result = app.test_cli_runner().invoke(args=["observatory", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def shown_tree(text: str) -> list[list[str]]:
    """The lines of a waterfall without its bars, times and ids."""
    lines = text.strip().splitlines()[2:]
    return [
        [
            word
            for word in line.split()
            if not re.search(r"\d (ms|µs)|━|\d\.\d|^\d+$|^[mµ]?s$", word)
        ]
        for line in lines
    ]


def test_first_trace(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    made = run("def complete")
    app, observatory = made["app"], made["observatory"]
    invoke(app, "migrate")
    answer = app.test_client().get("/ask?question=What+is+the+capital+of+France")
    assert answer.text == "Paris.\n"
    with app.app_context():
        observatory.traces.flush()
        (trace,) = observatory.uow.traces.list()
    assert trace.trace_id[:8] in invoke(app, "traces")
    tree = invoke(app, "trace", trace.trace_id[:8])
    shown = re.search(r"```text\n(GET /ask.*?)```", PAGE, re.DOTALL)
    assert shown
    assert shown_tree(tree) == shown_tree(shown[1])
    assert "2 spans · 16 tokens" in tree
    with app.app_context():
        observatory.close()


def test_logs_belong_to_their_request(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    app = Flask("shop")
    app.config["OBSERVATORY_RECORD_REQUESTS"] = True
    observatory = Observatory(app)
    handler = run("StorageHandler", app=app, observatory=observatory)["handler"]

    @app.get("/")
    def view() -> str:
        logging.getLogger("shop").warning("sold out")
        return "sorry"

    try:
        app.test_client().get("/")
        handler.flush()
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    with app.app_context():
        observatory.traces.flush()
        (trace,) = observatory.uow.traces.list()
        (record,) = observatory.uow.logs.list(service_name="shop")
        assert (record.body, record.trace_id) == ("sold out", trace.id)
        observatory.close()


def test_factory_settings_views_and_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_OBSERVATORY_RECORD_REQUESTS", "true")
    made = run("def create_app")
    create_app, observatory = made["create_app"], made["observatory"]
    # The fixtures of the page, as context managers.
    source = example("flask.md", "import pytest").replace("import pytest", "import contextlib")
    source = source.replace("@pytest.fixture", "@contextlib.contextmanager")
    names: dict[str, Any] = {"create_app": create_app, "observatory": observatory}
    exec(compile(source, "flask.md", "exec"), names)
    with names["database_url"]() as url, names["app"](url) as app:
        for words in ("def traces", "errorhandler", "before_request"):
            run(words, app=app, observatory=observatory, request=request)
        app.add_url_rule(
            "/names/<trace_id>", view_func=lambda trace_id: name_of(observatory, trace_id)
        )
        names["test_answers_are_recorded"](app)
        client = app.test_client()
        trace_id = client.get("/traces").json[0]["trace_id"]
        assert client.get(f"/names/{trace_id}", headers={"X-User": "ada"}).text == "GET"
        assert client.delete(f"/traces/{trace_id}").status_code == 204
        missing = client.get(f"/names/{trace_id}")
        assert missing.status_code == 404
        assert missing.json == {"error": f"there is no trace {trace_id}"}
        with app.app_context():
            observatory.traces.flush()
            assert (
                observatory.uow.traces.list(user_id="ada")[0].root_span_name
                == "GET /names/<trace_id>"
            )


def name_of(observatory: Observatory, trace_id: str) -> str:
    return str(observatory.uow.traces.get_by_trace_id(trace_id).root_span_name)


@pytest.mark.parametrize("words", ["OBSERVATORY_RETENTION_TRACES=", '["OBSERVATORY_WRITERS"]'])
def test_settings_are_accepted(words: str) -> None:
    app = Flask("shop")
    run(words, app=app)
    assert any(name.startswith("OBSERVATORY_") for name in app.config)
    Observatory(app)


def test_table_lists_the_settings_of_the_extension() -> None:
    listed = re.findall(r"^\| `OBSERVATORY_(\w+)` \|", PAGE, re.MULTILINE)
    assert sorted(listed) == sorted(field.name.upper() for field in fields(ExtensionSettings))


def test_quoted_error_is_what_users_see() -> None:
    (quoted,) = re.findall(r"^    (app\.config: .*)$", PAGE, re.MULTILINE)
    app = Flask("shop")
    app.config["OBSERVATORY_RETENTION_TRACE"] = "90d"
    with pytest.raises(ConfigError) as raised:
        Observatory(app)
    assert str(raised.value) == quoted


def test_reference_lists_every_name() -> None:
    listed = re.findall(r"^\.\. .*:: observatory_storage\.flask\.(\w+)$", REFERENCE, re.MULTILINE)
    assert sorted(listed) == sorted(public.__all__)


def test_every_public_method_has_a_docstring() -> None:
    members: Mapping[str, Any] = dict(inspect.getmembers_static(Observatory))
    undocumented = [
        name
        for name, value in members.items()
        if not name.startswith("_") and not inspect.getdoc(getattr(value, "fget", None) or value)
    ]
    assert undocumented == []
