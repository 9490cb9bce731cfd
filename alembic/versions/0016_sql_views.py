"""Views for people who query with other tools, with stable columns and comments.

The views have the rights of the role that reads them (`security_invoker`): otherwise a role that
may read a view alone would read the tables through it. A column is its name, its expression and its
comment, which docs/sql-views.md repeats. `o` is the table of the view; `{schema}.` stands for the
schema.

Revision ID: 0016
Revises: 0015
"""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

Columns = tuple[tuple[str, str, str], ...]


def _plain(names: str, comments: str) -> Columns:
    """Columns of the table under their own names, with a comment on each line."""
    listed = [line.strip() for line in comments.strip().splitlines()]
    return tuple(
        (name, f"o.{name}", told) for name, told in zip(names.split(), listed, strict=True)
    )


def _detail(key: str) -> str:
    # As in rollups: details of usage that counts, and numbers alone.
    return (
        "CASE WHEN (o.total_tokens IS NOT NULL OR o.total_cost_usd IS NOT NULL)"
        f" AND pg_catalog.jsonb_typeof(o.token_details -> '{key}') = 'number'"
        f" THEN CAST(o.token_details ->> '{key}' AS numeric) END"
    )


def _exception(attribute: str) -> str:
    # A subquery of a column costs nothing unless the column is selected.
    return (
        f"(SELECT e.attributes ->> '{attribute}' FROM {{schema}}.trace_events AS e"  # noqa: S608 - constants
        " WHERE e.trace_id = o.trace_id AND e.span_id = o.span_id"
        " AND e.span_start_time = o.start_time AND e.span_start_ns = o.start_ns"
        " AND e.name = 'exception' ORDER BY e.position DESC LIMIT 1)"
    )


def _level() -> str:
    names = {
        "TRACE": "TRACE TRACE2 TRACE3 TRACE4 FINEST",
        "DEBUG": "DEBUG DEBUG2 DEBUG3 DEBUG4 FINER VERBOSE FINE CONFIG",
        "INFO": "INFO INFO2 INFO3 INFO4 INFORMATION INFORMATIONAL NOTICE",
        "WARN": "WARN WARN2 WARN3 WARN4 WARNING",
        "ERROR": "ERROR ERROR2 ERROR3 ERROR4 ERR SEVERE DPANIC PANIC ALERT CRIT",
        "FATAL": "FATAL FATAL2 FATAL3 FATAL4 CRITICAL EMERG EMERGENCY",
    }
    by_number = " ".join(
        f"WHEN o.severity_number >= {least} THEN '{level}'"
        for level, least in zip(reversed(names), (21, 17, 13, 9, 5, 1), strict=True)
    )
    by_name = " ".join(
        "WHEN pg_catalog.upper(o.severity_text) IN ("
        + ", ".join(f"'{name}'" for name in of_level.split())
        + f") THEN '{level}'"
        for level, of_level in names.items()
    )
    return (
        f"CASE {by_number} WHEN o.severity_number IS NOT NULL THEN 'UNSPECIFIED' {by_name}"
        " ELSE 'UNSPECIFIED' END"
    )


_DURATION: Final = "(o.duration_us + o.duration_ns / CAST(1000 AS double precision)) / 1000"
_IS_MODEL_CALL: Final = (
    "(o.total_tokens IS NOT NULL OR o.total_cost_usd IS NOT NULL OR o.model IS NOT NULL"
    " AND o.reported_usage IS NULL AND (o.operation IS NULL OR o.operation NOT IN"
    " ('create_agent', 'execute_tool', 'invoke_agent', 'invoke_workflow', 'plan')))"
)
_SPAN_KEY: Final = (
    ("trace_id", "o.trace_id", "The trace, as in all views."),
    ("span_id", "o.span_id", "16 hex digits."),
    ("parent_span_id", "o.parent_span_id", "The span_id of its parent; NULL for a root."),
    ("name", "o.name", "The operation, such as chat gpt-4o."),
    ("kind", "o.kind", "unspecified, internal, server, client, producer or consumer."),
    ("service_name", "o.service_name", "The service."),
    ("start_time", "o.start_time", "The start. A condition on it prunes partitions."),
    ("start_ns", "o.start_ns", "The nanoseconds (0-999) beyond start_time."),
    ("end_time", "o.end_time", "The end; NULL if unknown."),
    ("duration_ms", _DURATION, "The duration in milliseconds; NULL if unknown."),
    ("status", "o.status", "unset, ok or error."),
)
_CALL: Final = _plain(
    "error_type operation provider model response_model response_id agent_name tool_name"
    " finish_reason prompt_name user_id session_id environment",
    """
    The class of the error: the error.type of OpenTelemetry.
    The gen_ai.operation.name of OpenTelemetry, such as chat or execute_tool.
    The provider of the model, such as openai.
    The requested model, or the responding one if no requested one is known.
    The model that responded.
    The id of the response. Spans with one id report one call.
    The name of the agent.
    The name of the tool that was run.
    Why the model stopped, such as stop, length or tool_calls.
    The name of the prompt template, not its text.
    The user of the application.
    The session or conversation.
    The deployment environment, such as production.
    """,
)
_USAGE: Final = (
    (
        "is_model_call",
        _IS_MODEL_CALL,
        "Whether it is a call of a model: usage counts on it, or it has a model and is not a span"
        " around calls, such as an agent.",
    ),
    *_plain(
        "prompt_tokens completion_tokens total_tokens",
        """
        Input tokens, including cached ones. NULL where a span below counts them.
        Output tokens, including reasoning tokens. NULL where a span below counts them.
        All tokens. NULL where a span below counts them, so that a sum counts each token once.
        """,
    ),
    ("cached_tokens", _detail("prompt_cache_read"), "Input tokens that were read from a cache."),
    ("reasoning_tokens", _detail("completion_reasoning"), "Output tokens of reasoning."),
    *_plain(
        "prompt_cost_usd completion_cost_usd total_cost_usd cost_source ttft_ms",
        """
        The cost of the input in US dollars.
        The cost of the output in US dollars.
        The cost in US dollars. NULL where a span below counts it, so that a sum counts each once.
        told if the cost was reported, computed if it was computed from prices.
        The time to the first token in milliseconds.
        """,
    ),
)
_WRITTEN: Final = (("created_at", "o.created_at", "When the row was first written."),)
_SCOPE: Final = _plain(
    "resource_attributes scope_name scope_version scope_attributes",
    """
    Attributes of the resource (process, host, service).
    The instrumentation scope.
    The version of the scope.
    Attributes of the scope.
    """,
)
_PREVIEWS: Final = "Large values are previews where payload_digests has their key."

# View -> its comment, its columns, and what it reads.
VIEWS: Final[dict[str, tuple[str, Columns, str]]] = {
    "observatory_traces": (
        "A row for each trace, with totals over its spans.",
        (
            ("trace_id", "o.id", "The trace, as in all views."),
            ("given_trace_id", "o.trace_id", "The trace id as it was given."),
            ("name", "o.root_span_name", "The name of its first span."),
            ("service_name", "o.service_name", "The service of its first span."),
            ("start_time", "o.start_time", "The start of its first span."),
            ("end_time", "o.end_time", "The end of its last span; NULL while none has ended."),
            (
                "duration_ms",
                "o.duration_us / CAST(1000 AS double precision)",
                "From start_time to end_time in milliseconds.",
            ),
            *_plain(
                "status status_message span_count error_count total_tokens total_cost_usd"
                " last_span_start attributes resource_attributes created_at updated_at",
                """
                error if a span failed; else ok or unset.
                The error message, if one was given for the trace.
                The number of its spans.
                The number of its failed spans.
                The tokens of its spans; NULL if none reports any.
                The cost of its spans in US dollars; NULL if none is known.
                The start of its last span. With start_time, it bounds the starts of its spans.
                Attributes that were given for the trace as a whole.
                Attributes of the resource that were given for the trace as a whole.
                When the row was first written.
                When the row was last written.
                """,
            ),
        ),
        "{schema}.traces AS o",
    ),
    "observatory_span_facts": (
        "A row for each span, without prompts, completions and other texts.",
        (*_SPAN_KEY, *_CALL, *_USAGE, *_WRITTEN),
        "{schema}.trace_spans AS o",
    ),
    "observatory_spans": (
        "A row for each span, with its attributes.",
        (
            *_SPAN_KEY,
            ("status_message", "o.status_message", "The error message of a failed span."),
            *_CALL,
            *_USAGE,
            ("attributes", "o.attributes", f"Its attributes. {_PREVIEWS}"),
            (
                "payload_digests",
                "o.payload_digests",
                "The attributes that are previews, with a digest of the whole value of each.",
            ),
            ("reported_usage", "o.reported_usage", "The usage that it reports and does not count."),
            ("links", "o.links", "Links to other spans."),
            *_SCOPE,
            *_WRITTEN,
        ),
        "{schema}.trace_spans AS o",
    ),
    "observatory_errors": (
        "A row for each failed span.",
        (
            *_SPAN_KEY[:-1],
            *_CALL,
            ("status_message", "o.status_message", "The error message of the span."),
            (
                "exception_message",
                _exception("exception.message"),
                "The last exception that the span recorded: its message. Large ones are previews.",
            ),
            (
                "exception_stacktrace",
                _exception("exception.stacktrace"),
                "Its stack trace. Large ones are previews.",
            ),
            *_WRITTEN,
        ),
        "{schema}.trace_spans AS o WHERE o.status = 'error'",
    ),
    "observatory_events": (
        "A row for each event of a span.",
        _plain(
            "trace_id span_id span_start_time span_start_ns position name timestamp timestamp_ns"
            " attributes payload_digests created_at",
            f"""
            The trace, as in all views.
            The span_id of its span.
            The start_time of its span. A condition on it prunes partitions.
            The start_ns of its span.
            Its position among the events of its span, from 0.
            The name of the event, such as exception.
            The time of the event.
            The nanoseconds (0-999) beyond timestamp.
            Its attributes. {_PREVIEWS}
            The attributes that are previews, with a digest of the whole value of each.
            When the row was first written.
            """,
        ),
        "{schema}.trace_events AS o",
    ),
    "observatory_sessions": (
        "A row for each session (conversation): the traces that have a span with its id.",
        (
            ("session_id", "o.session_id", "The session."),
            ("first_start_time", "carriers.first_start_time", "The start of its first span."),
            (
                "last_start_time",
                "o.start_time",
                "The start of its last span. A condition on it prunes partitions.",
            ),
            ("user_ids", "carriers.user_ids", "The users of its spans, sorted."),
            ("service_names", "carriers.service_names", "The services of its spans, sorted."),
            ("trace_count", "totals.trace_count", "The number of its traces."),
            ("error_trace_count", "totals.error_trace_count", "The traces with a failed span."),
            ("span_count", "totals.span_count", "The number of spans of its traces."),
            ("error_span_count", "totals.error_span_count", "The failed spans of its traces."),
            ("total_tokens", "totals.total_tokens", "The tokens of its traces; NULL if unknown."),
            (
                "total_cost_usd",
                "totals.total_cost_usd",
                "The cost of its traces in US dollars; NULL if unknown.",
            ),
        ),
        # The last span of a session stands for it, so that a condition on its start is one on the
        # table. LIMIT 1 makes later spans a question for each row: a join would read all of them.
        """{schema}.trace_spans AS o
         LEFT JOIN LATERAL (
                SELECT true AS found FROM {schema}.trace_spans AS l
                 WHERE l.session_id = o.session_id AND l.start_time >= o.start_time
                   AND (l.start_time, l.start_ns, l.trace_id, l.span_id)
                     > (o.start_time, o.start_ns, o.trace_id, o.span_id)
                 LIMIT 1
              ) AS later ON true
        CROSS JOIN LATERAL (
                SELECT pg_catalog.min(c.start_time) AS first_start_time,
                       pg_catalog.array_agg(DISTINCT c.trace_id) AS trace_ids,
                       pg_catalog.array_agg(DISTINCT c.service_name) AS service_names,
                       pg_catalog.array_agg(DISTINCT c.user_id)
                           FILTER (WHERE c.user_id IS NOT NULL) AS user_ids
                  FROM {schema}.trace_spans AS c
                 WHERE c.session_id = o.session_id AND c.start_time <= o.start_time
              ) AS carriers
        CROSS JOIN LATERAL (
                SELECT pg_catalog.count(*) AS trace_count,
                       pg_catalog.count(*) FILTER (WHERE t.status = 'error') AS error_trace_count,
                       CAST(pg_catalog.sum(t.span_count) AS bigint) AS span_count,
                       CAST(pg_catalog.sum(t.error_count) AS bigint) AS error_span_count,
                       CAST(pg_catalog.sum(t.total_tokens) AS bigint) AS total_tokens,
                       pg_catalog.sum(t.total_cost_usd) AS total_cost_usd
                  FROM {schema}.traces AS t
                 WHERE t.id = ANY (carriers.trace_ids)
              ) AS totals
        WHERE o.session_id IS NOT NULL AND later.found IS NOT TRUE""",
    ),
    "observatory_logs": (
        "A row for each log record.",
        (
            ("log_id", "o.id", "The record."),
            ("timestamp", "o.timestamp", "The time. A condition on it prunes partitions."),
            ("timestamp_ns", "o.timestamp_ns", "The nanoseconds (0-999) beyond timestamp."),
            ("observed_timestamp", "o.observed_timestamp", "When it was collected."),
            (
                "level",
                _level(),
                "TRACE, DEBUG, INFO, WARN, ERROR, FATAL or UNSPECIFIED, by number or text.",
            ),
            *_plain(
                "severity_number severity_text service_name body body_json event_name trace_id"
                " span_id trace_flags attributes",
                """
                The severity number of OpenTelemetry, 1 (TRACE) to 24 (FATAL4), as it was sent.
                The name of the level in the source.
                The service.
                The message.
                A body that is not text.
                The name of the event type.
                The trace, as in all views.
                The span in which it was logged.
                The W3C trace flags; 1 means sampled.
                Its attributes.
                """,
            ),
            *_SCOPE,
            *_WRITTEN,
        ),
        "{schema}.logs AS o",
    ),
    "observatory_metrics": (
        "A row for each metric.",
        (
            ("metric_id", "o.id", "The metric."),
            *_plain(
                "name description unit metric_type temporality service_name attributes",
                """
                The name of the metric.
                What it measures.
                The unit of its points.
                gauge, counter, updowncounter, histogram, exponential_histogram or summary.
                delta or cumulative; NULL for gauges and summaries.
                The service.
                Attributes that were given for the metric as a whole.
                """,
            ),
            *_SCOPE,
            *_WRITTEN,
            ("updated_at", "o.updated_at", "When the row was last written."),
        ),
        "{schema}.metrics AS o",
    ),
    "observatory_data_points": (
        "A row for each data point of a metric.",
        (
            ("metric_id", "o.metric_id", "The metric."),
            ("series_id", "o.id", "The series: the metric's points with equal attributes."),
            ("metric_name", "m.name", "The name of the metric."),
            ("metric_type", "m.metric_type", "The type of the metric."),
            ("temporality", "m.temporality", "delta or cumulative."),
            ("unit", "m.unit", "The unit of the values."),
            ("service_name", "m.service_name", "The service."),
            ("timestamp", "o.timestamp", "The time. A condition on it prunes partitions."),
            ("start_timestamp", "o.start_timestamp", "The start of the counted interval."),
            *_plain(
                "value count sum min max buckets quantiles exemplars attributes",
                """
                The value of a gauge or a counter.
                The number of observations of a histogram or summary.
                The sum of the observations.
                The least observation.
                The greatest observation.
                The bounds and counts of the buckets of a histogram.
                The quantiles of a summary.
                Single measurements with their spans.
                The attributes of the series.
                """,
            ),
            *_WRITTEN,
        ),
        "{schema}.metric_data_points AS o JOIN {schema}.metrics AS m ON m.id = o.metric_id",
    ),
}

_ORIGIN: Final = "timestamptz '2000-01-01 00:00:00+00'"
_GROUPS: Final = ("service_name", "environment", "operation", "provider", "model")
_TOKENS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")
_COSTS: Final = ("prompt_cost_usd", "completion_cost_usd", "total_cost_usd")
_COUNTS: Final = ("usage_span_count", "unpriced_span_count")
_COSTS_BY_DAY: Final = (
    ("day", "The day in UTC. A condition on it prunes partitions."),
    ("service_name", "The service."),
    ("environment", "The deployment environment."),
    ("operation", "The gen_ai.operation.name of OpenTelemetry."),
    ("provider", "The provider of the model."),
    ("model", "The model."),
    ("usage_span_count", "The number of spans that report tokens or a cost."),
    ("unpriced_span_count", "The number of these spans whose cost is unknown."),
    ("prompt_tokens", "The sum of the input tokens."),
    ("completion_tokens", "The sum of the output tokens."),
    ("total_tokens", "The sum of all tokens."),
    ("prompt_cost_usd", "The cost of the input in US dollars."),
    ("completion_cost_usd", "The cost of the output in US dollars."),
    ("total_cost_usd", "The cost in US dollars."),
)


def _costs_by_day() -> str:
    """Rollups where they are up to date, as `rollup_pieces.pieces_of` decides, and spans elsewhere.

    Spans are read hour by hour, in a subquery for each hour: its bounds are known when it begins,
    so it reads one partition. Their days are found by skipping from one with spans to the next. The
    hours are materialized, because otherwise their spans would be read before it is known whether
    rollups have them.
    """
    groups = ", ".join(_GROUPS)
    sums = ", ".join(
        [f"CAST(pg_catalog.sum({name}) AS bigint) AS {name}" for name in (*_COUNTS, *_TOKENS)]
        + [f"pg_catalog.sum({name}) AS {name}" for name in _COSTS]
    )
    rolled = ", ".join(f"r.{name}" for name in (*_GROUPS, *_COUNTS, *_TOKENS, *_COSTS))
    of_spans = ", ".join(f"pg_catalog.sum(o.{name}) AS {name}" for name in (*_TOKENS, *_COSTS))
    day_of_hour = f"pg_catalog.date_bin('24 hours', r.bucket, {_ORIGIN})"

    def marked(start: str, hours: int, levels: int) -> str:
        return (
            f"EXISTS (SELECT FROM marks WHERE marks.level <= {levels} AND marks.last >= {start}"
            f" AND marks.first < {start} + interval '{hours} hours')"
        )

    def hour_is_rolled(hour: str) -> str:
        return (
            f"{hour} >= coalesce(state.hour_since, '-infinity')"
            f" AND ({hour} < state.raw_since OR NOT {marked(hour, 1, 1)})"
        )

    return f"""
        WITH RECURSIVE state AS (
            SELECT true AS is_kept, raw_since, hour_since, day_since FROM {{schema}}.rollup_state
        ), marks AS (
            SELECT DISTINCT m.level,
                   pg_catalog.date_bin('1 hour', CASE m.level
                     WHEN 0 THEN greatest(m.start_time, state.raw_since)
                     ELSE m.start_time END, {_ORIGIN}) AS first,
                   pg_catalog.date_bin('1 hour', m.end_time, {_ORIGIN}) AS last
              FROM {{schema}}.span_changes AS m CROSS JOIN state
             WHERE m.level > 0 OR m.end_time >= coalesce(state.raw_since, '-infinity')
        ), ranges AS (
            SELECT DISTINCT pg_catalog.date_bin('24 hours', first, {_ORIGIN}) AS lower,
                   pg_catalog.date_bin('24 hours', last, {_ORIGIN}) + interval '24 hours' AS upper
              FROM marks
             UNION
            SELECT '-infinity', coalesce((SELECT coalesce(day_since, '-infinity') FROM state),
                                         'infinity')
        ), walk (day, upper) AS (
            SELECT pg_catalog.date_bin('24 hours',
                     (SELECT pg_catalog.min(start_time) FROM {{schema}}.trace_spans
                       WHERE start_time >= ranges.lower), {_ORIGIN}), ranges.upper
              FROM ranges WHERE ranges.upper > ranges.lower
             UNION
            SELECT pg_catalog.date_bin('24 hours',
                     (SELECT pg_catalog.min(start_time) FROM {{schema}}.trace_spans
                       WHERE start_time >= walk.day + interval '24 hours'), {_ORIGIN}), walk.upper
              FROM walk WHERE walk.day < walk.upper
        ), days AS (
            SELECT DISTINCT walk.day FROM walk WHERE walk.day < walk.upper
        ), hours AS MATERIALIZED (
            SELECT days.day, days.day + n * interval '1 hour' AS start
              FROM days CROSS JOIN pg_catalog.generate_series(0, 23) AS n
              LEFT JOIN state ON true
             WHERE NOT coalesce(
                     state.is_kept AND {hour_is_rolled("days.day + n * interval '1 hour'")}, false)
        ), pieces AS (
            SELECT r.bucket AS day, {rolled}
              FROM {{schema}}.span_rollups_day AS r CROSS JOIN state
             WHERE r.usage_span_count > 0 AND r.bucket >= coalesce(state.day_since, '-infinity')
               AND NOT {marked("r.bucket", 24, 2)}
             UNION ALL
            SELECT {day_of_hour}, {rolled}
              FROM {{schema}}.span_rollups_hour AS r CROSS JOIN state
             WHERE r.usage_span_count > 0 AND {hour_is_rolled("r.bucket")}
               AND ({day_of_hour} < state.day_since OR {marked(day_of_hour, 24, 2)})
             UNION ALL
            SELECT hours.day, spans.*
              FROM hours
             CROSS JOIN LATERAL (
                    SELECT {groups}, pg_catalog.count(*) AS usage_span_count,
                           pg_catalog.count(*) FILTER (WHERE o.total_cost_usd IS NULL)
                               AS unpriced_span_count, {of_spans}
                      FROM {{schema}}.trace_spans AS o
                     WHERE o.start_time >= hours.start
                       AND o.start_time < hours.start + interval '1 hour'
                       AND (o.total_tokens IS NOT NULL OR o.total_cost_usd IS NOT NULL)
                     GROUP BY {groups}
                  ) AS spans
        )
        SELECT CAST(pieces.day AT TIME ZONE 'UTC' AS date) AS day, {groups}, {sums}
          FROM pieces
         GROUP BY CAST(pieces.day AT TIME ZONE 'UTC' AS date), {groups}
    """  # noqa: S608 - nothing but constants


def upgrade() -> None:
    for name, (comment, columns, source) in VIEWS.items():
        listed = ", ".join(f'{expression} AS "{column}"' for column, expression, _ in columns)
        told = [(column, text) for column, _, text in columns]
        _create(name, comment, told, f"SELECT {listed} FROM {source}")  # noqa: S608 - constants
    comment = "Tokens and costs by day in UTC, from rollups where these are up to date."
    _create("observatory_costs_by_day", comment, list(_COSTS_BY_DAY), _costs_by_day())


def downgrade() -> None:
    for name in ("observatory_costs_by_day", *reversed(VIEWS)):
        _execute(f"DROP VIEW IF EXISTS {{schema}}.{name}")


def _create(name: str, comment: str, columns: list[tuple[str, str]], query: str) -> None:
    _execute(f"CREATE VIEW {{schema}}.{name} WITH (security_invoker = true) AS {query}")
    # One statement, since earlier migrations may hold locks that writers wait for.
    comments = [f"COMMENT ON VIEW {{schema}}.{name} IS '{comment}';"]
    for column, told in columns:
        text = told.replace("'", "''")
        comments.append(f"COMMENT ON COLUMN {{schema}}.{name}.\"{column}\" IS '{text}';")
    _execute(f"DO $comments$ BEGIN {' '.join(comments)} END $comments$")


def _execute(statement: str) -> None:
    schema = op.get_context().version_table_schema or "public"
    quoted = '"' + schema.replace('"', '""').replace(":", "\\:") + '"'
    op.execute(statement.replace("{schema}", quoted))
