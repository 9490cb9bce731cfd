"""``costs``: tokens and cost of model calls, by group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from rich.console import RenderableType

from observatory_storage.cli import option_types
from observatory_storage.cli.common_options import (
    State,
    StorageCommand,
    common_options,
    json_option,
    replica_option,
)
from observatory_storage.cli.filter_options import bucket_options
from observatory_storage.cli.formatting import count, dollars, moment
from observatory_storage.cli.text_table import Column, table
from observatory_storage.repositories import CostSummary
from observatory_storage.repositories.reading.empty_buckets import COUNT_FILLS

__all__ = ["command"]

_GROUPS = {
    "provider": "provider",
    "model": "model",
    "service": "service_name",
    "operation": "operation",
    "environment": "environment",
    "user": "user_id",
    "session": "session_id",
    "gen-ai-operation": "gen_ai_operation",
    "response-model": "response_model",
    "agent": "agent_name",
    "prompt": "prompt_name",
}
_NUMBERS = (
    Column("CALLS", right=True, keep=6),
    Column("UNPRICED", right=True, keep=2),
    Column("PROMPT", right=True, keep=3),
    Column("COMPLETION", right=True, keep=4),
    Column("TOKENS", right=True, keep=5),
    Column("COST", right=True, keep=8),
)


@click.command("costs", cls=StorageCommand)
@click.option(
    "--by",
    multiple=True,
    type=click.Choice(list(_GROUPS)),
    default=["provider", "model"],
    help="A column to group by. Repeatable. [provider, model]",
)
@click.option(
    "--bucket",
    "bucket_size_secs",
    type=option_types.bucket_size,
    help="Also group by buckets of time: 1h, 7d, day, week, month, quarter or year.",
)
@bucket_options(COUNT_FILLS)
@click.option(
    "--since",
    "start_time",
    type=option_types.time,
    default="1d",
    help="Calls from this time on. [1d]",
)
@click.option("--until", "end_time", type=option_types.time, help="Calls before this. [now]")
@click.option("--service", "service_name", help="The service's name.")
@click.option("--provider", help="The provider.")
@click.option("--model", help="The model.")
@click.option("--user", "user_id", help="The user's id.")
@click.option("--environment", help="The environment.")
@click.option("--agent", "agent_name", help="The agent's name.")
@click.option("--prompt", "prompt_name", help="The name of the prompt template.")
@click.option("--limit", type=click.IntRange(1, 2**31 - 1), help="The maximum number of groups.")
@json_option
@replica_option
@common_options
@click.pass_obj
def command(
    state: State,
    /,
    *,
    by: tuple[str, ...],
    **given: Any,
) -> None:
    """Show tokens and cost of the model calls of the last day, the most expensive first.

    UNPRICED counts the calls whose cost is unknown. COST does not include them.
    """
    output = state.output()
    with state.reading() as work:
        summaries = work.metrics.get_cost_summary(group_by=[_GROUPS[name] for name in by], **given)
    if output.json:
        output.write_all(summaries)
    else:
        output.show(_costs_table(by, summaries))


def _costs_table(by: Sequence[str], summaries: Sequence[CostSummary]) -> RenderableType:
    in_buckets = any(each.timestamp is not None for each in summaries)
    columns = [
        *([Column("TIME (UTC)", keep=7)] if in_buckets else []),
        *(Column(name.upper(), narrowest=10, keep=9) for name in by),
        *_NUMBERS,
    ]
    rows = (
        [
            *([moment(each.timestamp)] if in_buckets else []),
            *(each.group[_GROUPS[name]] or "-" for name in by),
            count(each.span_count),
            count(each.unpriced_span_count),
            count(each.prompt_tokens),
            count(each.completion_tokens),
            count(each.total_tokens),
            dollars(each.total_cost_usd),
        ]
        for each in summaries
    )
    return table(columns, rows)
