"""The options that select traces, log records and metrics, for lists and exports.

The parameter of an option has the name of the filter field that it sets. Filters may also be
written as text, in the argument FILTER.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from observatory_storage.cli import option_types
from observatory_storage.errors import ValidationError
from observatory_storage.models import METRIC_TYPES, STATUSES
from observatory_storage.repositories.reading import filter_text
from observatory_storage.repositories.reading.filter_fields import rules_of

__all__ = [
    "bucket_options",
    "given_fields",
    "log_filters",
    "metric_filters",
    "time_range",
    "trace_filters",
]

Command = TypeVar("Command", bound=Callable[..., Any])

_SINCE = click.option(
    "--since",
    "start_time",
    type=option_types.time,
    help="From this time on: 2026-07-01T12:00, or 2h for two hours ago.",
)
_UNTIL = click.option("--until", "end_time", type=option_types.time, help="Before this time.")
_TEXT_HELP = 'words, "a phrase", begin*, -without, one or another.'
_ATTRIBUTES = click.option(
    "--attribute",
    "-a",
    "attributes",
    type=option_types.attribute,
    multiple=True,
    callback=option_types.attributes_of,
    metavar="KEY=VALUE",
    help='An attribute. 5 and true are a number and a boolean, "5" in quotes is text, ["a"] a list.'
    " Repeatable.",
)
_FILTERS = click.argument("filters", nargs=-1, metavar="[FILTER]...")
_SERVICE = click.option("--service", "service_name", help="The service's name.")


def time_range(command: Command) -> Command:
    """Add ``--since`` and ``--until``."""
    return _SINCE(_UNTIL(command))


def bucket_options(fills: Sequence[str]) -> Callable[[Command], Command]:
    """Add ``--time-zone`` and ``--fill``, which go with ``--bucket``."""
    zone = click.option(
        "--time-zone", help="The time zone in which days begin, such as Asia/Tokyo. [UTC]"
    )
    fill = click.option(
        "--fill", type=click.Choice(fills), help="Also show buckets without a value, with this one."
    )
    return lambda command: zone(fill(command))


def trace_filters(command: Command) -> Command:
    """Add the options that select traces: the fields of `TraceFilters`."""
    return _added(
        command,
        _FILTERS,
        _SERVICE,
        click.option("--operation", help="The name of a span."),
        click.option("--status", type=click.Choice(STATUSES), help="The status of a span."),
        _SINCE,
        _UNTIL,
        click.option(
            "--min-duration",
            "min_duration_us",
            type=option_types.microseconds,
            help="The minimum duration of a span, such as 250ms.",
        ),
        click.option(
            "--max-duration",
            "max_duration_us",
            type=option_types.microseconds,
            help="The maximum duration of a span.",
        ),
        click.option(
            "--min-cost", "min_cost_usd", type=float, help="The minimum cost of a span, in US$."
        ),
        click.option(
            "--max-cost", "max_cost_usd", type=float, help="The maximum cost of a span, in US$."
        ),
        click.option("--min-tokens", type=int, help="The minimum tokens of a span."),
        click.option("--max-tokens", type=int, help="The maximum tokens of a span."),
        click.option("--text", help=f"Search prompts and completions: {_TEXT_HELP}"),
        click.option(
            "--contains",
            help="A substring of a prompt or completion, in any case; needs --since.",
        ),
        click.option("--provider", help="The provider of a model call."),
        click.option("--model", help="The model of a model call."),
        click.option("--user", "user_id", help="The user's id."),
        click.option("--session", "session_id", help="The session's id, or its beginning."),
        click.option("--environment", help="The environment."),
        click.option(
            "--gen-ai-operation", help="What a model call or agent does: chat, execute_tool, ..."
        ),
        click.option("--response-model", help="The model that responded."),
        click.option("--agent", "agent_name", help="The agent's name."),
        click.option("--tool", "tool_name", help="The tool's name."),
        click.option("--finish-reason", help="Why the model stopped: stop, length, ..."),
        click.option("--error-type", help="The class of the error."),
        click.option("--prompt", "prompt_name", help="The name of the prompt template."),
        _ATTRIBUTES,
    )


def log_filters(command: Command) -> Command:
    """Add the options that select log records: the fields of `LogFilters`."""
    return _added(
        command,
        _FILTERS,
        _SERVICE,
        click.option(
            "--level",
            "min_severity",
            type=option_types.severity,
            help="At least this level: TRACE, DEBUG, INFO, WARN, ERROR, FATAL, or 1 to 24.",
        ),
        click.option("--trace", "trace_id", help="The trace's id, or its beginning."),
        click.option("--span", "span_id", help="The span's id, or with --trace its beginning."),
        click.option("--event-name", help="The name of the event."),
        click.option("--text", help=f"Search the body and attributes of events: {_TEXT_HELP}"),
        click.option(
            "--contains",
            help="A substring of the body or of an event, in any case; needs --since.",
        ),
        _SINCE,
        _UNTIL,
        _ATTRIBUTES,
    )


def metric_filters(command: Command) -> Command:
    """Add the options that select metrics: the fields of `MetricFilters`."""
    return _added(
        command,
        _SERVICE,
        click.option("--type", "metric_type", type=click.Choice(METRIC_TYPES), help="The type."),
    )


def given_fields(kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of filters of the kind that the options and the text in ``filters`` set.

    Raises:
        ValidationError: the text is not understood, or it sets a field that an option sets too.
    """
    options = {name: value for name, value in given.items() if value is not None}
    text = " ".join(options.pop("filters"))
    found = filter_text.fields_of(rules_of(kind), text)
    for name in options.keys() & found.keys():
        raise ValidationError(name, options[name], "must not be given in a FILTER too")
    return found | options


def _added(command: Command, *options: Callable[[Command], Command]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command
