"""A request is a span, and what is recorded within it belongs to its trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from flask import Flask, Response, abort, stream_with_context

from observatory_storage import (
    ConfigError,
    TraceSpan,
    TraceWriter,
    current_observation,
    observe,
    observe_llm,
)
from observatory_storage.flask import Observatory
from tests.flask_extension.conftest import MakeApp

TRACE, PARENT = "ab" * 16, "cd" * 8
HEADERS = {"traceparent": f"00-{TRACE}-{PARENT}-01"}

Spans = Callable[..., dict[str, TraceSpan]]


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    """An application that records its requests."""
    app = make_app(OBSERVATORY_RECORD_REQUESTS=True, OBSERVATORY_SERVICE_NAME="storefront")
    app.config["PROPAGATE_EXCEPTIONS"] = False
    return app


@pytest.fixture
def spans(app: Flask, observatory: Observatory) -> Spans:
    """Returns the stored spans of a trace by name."""

    def stored(trace_id: str = TRACE) -> dict[str, TraceSpan]:
        with app.app_context():
            observatory.traces.flush()
            found = observatory.uow.traces.get_spans(trace_id)
        return {span.name: span for span in found}

    return stored


def test_calls_are_children_of_their_request(
    app: Flask, observatory: Observatory, spans: Spans
) -> None:
    @observe(observatory, kind="tool")
    def weather(city: str) -> str:
        return f"sun in {city}"

    @observe_llm(observatory, provider="openai", model="gpt-5")
    def ask(prompt: str) -> dict[str, Any]:
        return {"usage": {"prompt_tokens": 2, "completion_tokens": 3}}

    @app.get("/ask/<int:number>")
    def view(number: int) -> dict[str, Any]:
        weather("Oslo")
        ask("Shall I walk?")
        span = current_observation()
        assert span is not None
        span.update(user_id="ada", session_id="s1", environment="test")
        return {"trace_id": span.trace_id}

    client = app.test_client()
    answer = client.get("/ask/5?secret=1", headers={**HEADERS, "User-Agent": "tests"})
    assert answer.json == {"trace_id": TRACE}
    stored = spans()
    request = stored["GET /ask/<int:number>"]
    assert (request.kind, request.status, request.service_name) == ("server", "unset", "storefront")
    assert request.parent_span_id == PARENT
    assert (request.user_id, request.session_id, request.environment) == ("ada", "s1", "test")
    assert request.attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/ask/<int:number>",
        "session.id": "s1",
        "url.path": "/ask/5",
        "url.scheme": "http",
        "user.id": "ada",
        "user_agent.original": "tests",
    }
    call, tool = stored["chat gpt-5"], next(s for n, s in stored.items() if n.endswith("weather"))
    assert call.parent_span_id == tool.parent_span_id == request.span_id
    assert (call.total_tokens, call.service_name) == (5, "storefront")
    assert request.start_time <= tool.start_time
    assert current_observation() is None


def test_requests_are_not_recorded_by_default(make_app: MakeApp, observatory: Observatory) -> None:
    app = make_app()

    @app.get("/")
    def view() -> str:
        assert current_observation() is None
        return "well"

    assert app.test_client().get("/").text == "well"
    with app.app_context():
        assert observatory.traces.buffer_stats().buffered == 0


@pytest.mark.parametrize("header", ["", "nonsense", f"00-{'0' * 32}-{PARENT}-01"])
def test_malformed_header_begins_a_trace(app: Flask, header: str, spans: Spans) -> None:
    @app.get("/")
    def view() -> str:
        span = current_observation()
        assert span is not None
        return span.trace_id

    trace_id = app.test_client().get("/", headers={"traceparent": header}).text
    assert spans(trace_id)["GET /"].parent_span_id is None


def test_errors(app: Flask, spans: Spans) -> None:
    @app.get("/broken")
    def broken() -> str:
        raise LookupError("no such product")

    @app.get("/busy")
    def busy() -> tuple[str, int]:
        return "try again", 503

    @app.get("/missing")
    def missing() -> str:
        abort(404)

    client = app.test_client()
    for path, status in (("/broken", 500), ("/busy", 503), ("/missing", 404), ("/nowhere", 404)):
        assert client.get(path, headers=HEADERS).status_code == status
    stored = spans()
    failed = stored["GET /broken"]
    assert (failed.status, failed.status_message) == ("error", "no such product")
    assert failed.attributes["error.type"] == "LookupError"
    assert failed.attributes["http.response.status_code"] == 500
    assert (stored["GET /busy"].status, stored["GET /busy"].error_type) == ("error", "503")
    assert stored["GET /missing"].status == "unset"
    unrouted = stored["GET"]
    assert (unrouted.status, unrouted.attributes["http.response.status_code"]) == ("unset", 404)
    assert "http.route" not in unrouted.attributes


def test_errors_that_reach_the_server(app: Flask, spans: Spans) -> None:
    app.config["PROPAGATE_EXCEPTIONS"] = True

    @app.get("/broken")
    def broken() -> str:
        raise LookupError("no such product")

    with pytest.raises(LookupError):
        app.test_client().get("/broken", headers=HEADERS)
    assert spans()["GET /broken"].status == "error"
    assert current_observation() is None


@pytest.mark.parametrize("keeps_context", [True, False])
def test_span_of_a_stream_ends_with_it(
    app: Flask, observatory: Observatory, spans: Spans, keeps_context: bool
) -> None:
    @observe_llm(observatory, provider="openai", model="gpt-5")
    def words() -> Iterator[str]:
        yield "one "
        yield "two"

    @app.get("/stream")
    def stream() -> Response:
        answer = words()
        return app.response_class(stream_with_context(answer) if keeps_context else answer)

    with app.test_client().get("/stream", headers=HEADERS) as answer:
        assert answer.get_data(as_text=True) == "one two"
    stored = spans()
    request, call = stored["GET /stream"], stored["chat gpt-5"]
    assert call.parent_span_id == request.span_id
    assert call.end_time is not None
    assert request.end_time is not None
    assert call.end_time <= request.end_time
    assert current_observation() is None


def test_a_stream_is_stored_by_its_own_application(
    make_app: MakeApp, observatory: Observatory
) -> None:
    app, other = make_app(), make_app()
    with app.app_context():
        own = observatory.traces

    @app.get("/stream")
    def stream() -> Response:
        def parts() -> Iterator[str]:
            try:
                yield "begun "
                with other.app_context():
                    assert observatory() is not own
                yield "ours" if observatory() is own else "theirs"
            finally:  # also when the client leaves
                closed.append(observatory())

        return app.response_class(parts())

    closed: list[TraceWriter] = []
    client = app.test_client()
    with client.get("/stream") as answer:
        assert answer.get_data(as_text=True) == "begun ours"
    with client.get("/stream", buffered=False) as answer:
        assert next(answer.iter_encoded()) == b"begun "
        with pytest.raises(RuntimeError, match="outside of application context"):
            observatory()
    assert closed == [own, own]
    with pytest.raises(RuntimeError, match="outside of application context"):
        observatory()


def test_stream_that_is_not_closed_is_no_parent_of_the_next_request(
    app: Flask, spans: Spans
) -> None:
    @app.get("/stream")
    def stream() -> Response:
        return app.response_class(iter(["one"]))

    @app.get("/")
    def view() -> str:
        span = current_observation()
        assert span is not None
        return span.trace_id

    client = app.test_client()
    unclosed = client.get("/stream", headers=HEADERS)
    trace_id = client.get("/").text
    assert trace_id != TRACE
    assert spans(trace_id)["GET /"].parent_span_id is None
    assert "GET /stream" in spans()
    unclosed.close()
    assert current_observation() is None


def test_async_views(app: Flask, observatory: Observatory, spans: Spans) -> None:
    @observe_llm(observatory, provider="openai", model="gpt-5")
    async def ask(prompt: str) -> str:
        return f"{prompt}!"

    @app.get("/async")
    async def view() -> str:
        return await ask("Go")

    assert app.test_client().get("/async", headers=HEADERS).text == "Go!"
    stored = spans()
    assert stored["chat gpt-5"].parent_span_id == stored["GET /async"].span_id


def test_the_blueprint_is_not_recorded(app: Flask, observatory: Observatory) -> None:
    app.register_blueprint(observatory.blueprint())
    assert app.test_client().get("/health").status_code == 200
    with app.app_context():
        assert observatory.traces.buffer_stats().buffered == 0


def test_requests_do_not_wait_for_the_database(app: Flask, spans: Spans, database_url: str) -> None:
    @app.get("/<int:number>")
    def view(number: int) -> str:
        return str(number)

    client = app.test_client()
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE trace_spans")
        assert [client.get(f"/{number}", headers=HEADERS).text for number in range(3)] == list(
            "012"
        )
    assert "GET /<int:number>" in spans()


@pytest.mark.parametrize("value", ["yes", 2, []])
def test_switch_is_a_truth_value(make_app: MakeApp, value: object) -> None:
    rule = r"OBSERVATORY_RECORD_REQUESTS = .*: must be True or False"
    with pytest.raises(ConfigError, match=rule):
        make_app(OBSERVATORY_RECORD_REQUESTS=value)
