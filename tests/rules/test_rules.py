"""What rules make of a row."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

import pytest

from observatory_storage.config import RulesConfig
from observatory_storage.models import LogRecord, TraceEvent, TraceSpan
from observatory_storage.rows import Rules
from observatory_storage.tables import DATA_POINTS, EVENTS, LOGS, METRICS, SPANS, TRACES
from observatory_storage.writers import LogWriter, TraceWriter
from tests.rules.doors import pool_with
from tests.writers.helpers import a_log, a_point, a_span, event, fetch


class Key(enum.Enum):
    OLD = "old"


def rules(**given: Any) -> Rules:
    return Rules(RulesConfig(**given))


def applied(row: dict[str, Any], **given: Any) -> Any:
    before = repr(row)
    result = rules(**given).applied(SPANS, row)
    assert repr(row) == before
    return result


def attributes(given: Any, **config: Any) -> Any:
    return applied({"attributes": given}, **config)["attributes"]


def redacted(value: Any, *patterns: Any) -> Any:
    return attributes({"a": value}, redact=patterns)["a"]


def test_no_rules_are_none() -> None:
    assert Rules.of(RulesConfig()) is None
    assert Rules.of(RulesConfig(drop_contents=True)) is not None


def test_a_row_that_no_rule_concerns_is_not_copied() -> None:
    row = a_span(attributes={"a": [{"b": "c"}], "json": '{"d": 1}'}, events=[event("e")])
    assert (
        applied(
            row,
            drop=[{"name": "x"}],
            drop_attributes=["x"],
            rename_attributes={"x": "y"},
            redact=["xyz"],
            drop_contents=True,
        )
        is row
    )


@pytest.mark.parametrize(
    ("rule", "is_dropped"),
    [
        ({"name": "operation"}, True),
        ({"name": "oper"}, False),
        ({"name": "oper*"}, True),
        ({"name": "*ation"}, True),
        ({"name": "o*r*n"}, True),
        ({"name": "operation."}, False),
        ({"name": "OPERATION"}, False),
        ({"scope": "lib*"}, True),
        ({"scope": "lib"}, False),
        ({"scope": "lib*", "name": "other"}, False),
        ({"signal": "spans", "name": "*"}, True),
        ({"signal": "logs", "name": "*"}, False),
        ({"attribute": "http.*"}, True),
        ({"attribute": "host"}, True),
        ({"attribute": "version"}, True),
        ({"attribute": "5"}, True),
        ({"attribute": "nested"}, False),
        ({"attribute": "http.path", "pattern": "^/live$"}, True),
        ({"attribute": "http.path", "pattern": "^/li$"}, False),
        ({"attribute": "status", "pattern": "^404$"}, True),
        ({"attribute": "flag", "pattern": "true"}, True),
        ({"attribute": "path", "pattern": "^/srv/x$"}, True),
        ({"pattern": "deep inside"}, True),
        ({"pattern": "^failed: "}, True),
        ({"pattern": "not there"}, False),
    ],
)
def test_a_span_that_meets_all_conditions_is_dropped(rule: Any, is_dropped: bool) -> None:
    span = a_span(
        scope_name="library",
        status_message="failed: x",
        attributes={
            "http.path": "/live",
            "status": 404,
            "flag": True,
            "path": Path("/srv/x"),
            "object": [{"nested": ("so deep inside",)}],
            5: "five",
        },
        resource_attributes={"host": "a"},
        scope_attributes={"version": "1"},
    )
    assert (applied(span, drop=[{"name": "never"}, rule]) is None) is is_dropped


def test_each_signal_has_its_name() -> None:
    dropping = rules(drop=[{"name": "noise"}])
    for table, row in (
        (SPANS, {"name": "noise"}),
        (EVENTS, {"name": "noise"}),
        (METRICS, {"name": "noise", "metric_type": "gauge"}),
        (LOGS, {"event_name": "noise"}),
    ):
        assert dropping.applied(table, row) is None
    for table, row in (
        (LOGS, {"body": "noise"}),
        (TRACES, {"root_span_name": "noise"}),
        (DATA_POINTS, a_point("0" * 31 + "1")),
    ):
        assert dropping.applied(table, row) == row


def test_events_of_spans_are_dropped_by_themselves() -> None:
    span = a_span(
        name="token",
        scope_name="lib",
        events=[event("token"), TraceEvent(**event("token")), event("other"), event("token.2")],
    )
    kept = applied(span, drop=[{"name": "token", "signal": "events", "scope": "lib"}])
    assert [given["name"] for given in kept["events"]] == ["other", "token.2"]
    assert applied(span, drop=[{"name": "token", "signal": "events", "scope": "other"}]) is span


def test_attributes_are_dropped_and_renamed_by_their_keys() -> None:
    given = {"a.b": 1, "a": 2, "b": 3, 4: 5, Key.OLD: 6, "nested": {"b": 7}}
    config = {"drop_attributes": ["a.*", "4"], "rename_attributes": {"b": "c", "old": "new"}}
    assert attributes(given, **config) == {"a": 2, "c": 3, "new": 6, "nested": {"b": 7}}
    # In one step: what one renaming gives, another does not take.
    assert attributes({"a": 1, "b": 2}, rename_attributes={"a": "x", "x": "y"}) == {"x": 1, "b": 2}


def test_an_attribute_of_the_new_key_stays_and_so_does_the_old_one() -> None:
    given = {"a": 1, "b": 2, "c": 3}
    assert attributes(given, rename_attributes={"a": "b"}) == given
    renamed = attributes({"a": 1, "c": 3}, rename_attributes={"a": "x", "c": "x"})
    assert renamed == {"x": 1, "c": 3}


def test_redaction_reaches_every_text() -> None:
    assert redacted(["x1", {"k": ("x2",)}], r"x\d") == ["[redacted]", {"k": ["[redacted]"]}]
    assert redacted({"x1": {"x2": 1}}, r"x\d") == {"[redacted]": {"[redacted]": 1}}
    assert redacted({Path("/x1"), "b"}, r"x\d") == ["/[redacted]", "b"]
    assert redacted(ValueError("x1"), r"x\d") == "ValueError: [redacted]"
    assert redacted(Key.OLD, "old") == "[redacted]"
    assert redacted([1, 2.5, None, True], r"\d|e") == [1, 2.5, None, True]
    assert redacted("a1b2", r"\d", {"pattern": r"([ab])\[", "replacement": r"<\1>["}) == (
        "<a>[redacted]<b>[redacted]"
    )


def test_redaction_reads_json_in_text() -> None:
    escaped = ' {"a": ["m\\u0040x", "{\\"b\\": \\"m\\\\u0040x\\"}"], "n": 5}'
    assert (
        redacted(escaped, "m@x") == '{"a": ["[redacted]", "{\\"b\\": \\"[redacted]\\"}"], "n": 5}'
    )
    untouched = '{"a":  1.10, "a": 2}'
    assert redacted([untouched], "m@x") == [untouched]
    assert redacted('{"a": "m@x"', "m@x") == '{"a": "[redacted]"'
    assert redacted('{"n": 4111}', r"\d{4}") == '{"n": [redacted]}'
    assert redacted("[" * 5000 + "m@x", "m@x") == "[" * 5000 + "[redacted]"


def test_redaction_of_one_attribute_leaves_the_others() -> None:
    rule = {"pattern": "x", "replacement": "y", "attribute": "http.*"}
    row = {
        "name": "x",
        "attributes": {"http.a": {"deep": "x"}, "b": "x"},
        "resource_attributes": {"http.c": "x"},
        "links": [{"attributes": {"http.d": "x", "e": "x"}}],
    }
    assert applied(row, redact=[rule]) == {
        "name": "x",
        "attributes": {"http.a": {"deep": "y"}, "b": "x"},
        "resource_attributes": {"http.c": "y"},
        "links": [{"attributes": {"http.d": "y", "e": "x"}}],
    }


def test_what_contains_itself_is_redacted_and_ends() -> None:
    endless: dict[str, Any] = {"a": "x1"}
    endless["self"] = endless
    deep: Any = "x1"
    for _ in range(10_000):
        deep = [deep]
    redacting = rules(redact=["x1"])
    row = redacting.applied(SPANS, {"attributes": {"e": endless, "d": deep, "b": "x1"}})
    assert row is not None
    text = str(row["attributes"]["e"]) + str(row["attributes"]["b"])
    assert "x1" not in text
    assert "contains itself" in text


def test_values_that_are_not_valid_are_left_to_their_checks() -> None:
    row = {
        "name": 5,
        "attributes": [1],
        "links": "none",
        "exemplars": [3],
        "events": [5, {"attributes": 5}],
        "otlp": 5,
    }
    given = {"drop_attributes": ["a"], "redact": ["b"], "drop": [{"pattern": "c"}]}
    assert applied(row, **given) is row


def test_contents_of_events_and_logs_are_dropped(database_url: str) -> None:
    events = [
        event("gen_ai.user.message", attributes={"content": "the words", "role": "user"}),
        event("gen_ai.content.prompt", attributes={"gen_ai.prompt": "the words"}),
        TraceEvent(**event("other", attributes={"content": "kept", "output.value": "the words"})),
    ]
    with pool_with(database_url, drop_contents=True) as pool:
        with TraceWriter(pool) as traces, LogWriter(pool) as logs:
            traces.write_span(a_span(attributes={"gen_ai.request.model": "m"}, events=events))
            message = {"message": {"content": "the words"}}
            prompt = {"event.name": "claude_code.user_prompt", "prompt": "the words", "length": 9}
            logs.write_log(a_log(1, event_name="gen_ai.choice", body=None, body_json=message))
            logs.write_log(a_log(2, body="the words", attributes=prompt))
            logs.write_log(a_log(3, body="an ordinary line", attributes={"content": "kept"}))
        assert fetch(pool, TraceSpan)[0]["model"] == "m"
        stored = [row["attributes"] for row in fetch(pool, TraceEvent, "position")]
        assert stored == [{"role": "user"}, {}, {"content": "kept"}]
        rows = fetch(pool, LogRecord, "timestamp")
        assert [row["body"] for row in rows] == [None, None, "an ordinary line"]
        assert [row["body_json"] for row in rows] == [None] * 3
        assert rows[1]["attributes"] == {"event.name": "claude_code.user_prompt", "length": 9}
        assert rows[2]["attributes"] == {"content": "kept"}


def test_facts_that_stand_in_contents_are_kept(database_url: str) -> None:
    given = a_span(
        attributes={"output.value": "the words", "gen_ai.usage.input_tokens": 3},
        completion_tokens=4,
        total_cost_usd=1,
        duration_us=7,
        end_time=None,
    )
    with pool_with(database_url) as plain, pool_with(database_url, drop_contents=True) as pool:
        for target, number in ((plain, 1), (pool, 2)):
            with TraceWriter(target) as writer:
                writer.write_span(given | {"span_id": f"{number:016x}"})
        one, other = fetch(pool, TraceSpan, "span_id")
    assert one.pop("attributes").keys() - other.pop("attributes").keys() == {"output.value"}
    for row in (one, other):
        del row["span_id"], row["created_at"]
    assert one == other
