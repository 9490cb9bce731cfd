"""``prices``: the prices of models, and the costs that are computed with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import RenderableType
from rich.text import Text

from observatory_storage.cli import option_types
from observatory_storage.cli.common_options import (
    State,
    StorageCommand,
    common_options,
    json_option,
)
from observatory_storage.cli.console import new_console
from observatory_storage.cli.formatting import count, moment
from observatory_storage.cli.resumable_work import show_resumable
from observatory_storage.cli.text_table import Column, table
from observatory_storage.pricing import (
    LoadedPrices,
    Price,
    PriceTable,
    load_package_prices,
    load_prices,
    service_tier_of,
)
from observatory_storage.storing import recompute_costs
from observatory_storage.wording import counted

if TYPE_CHECKING:
    from observatory_storage.repositories import UnpricedModel

__all__ = ["command"]

_SHOWN_REASONS = 5


@click.group("prices")
@common_options
def command() -> None:
    """Load and show prices of models, and compute costs with them.

    Prices are in US dollars per million tokens. Writers compute the cost of a call that brings
    tokens and no cost, with the price at the start of the call.
    """


@command.command("load", cls=StorageCommand)
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--replace", is_flag=True, help="Remove your own prices that are not in FILE.")
@json_option
@common_options
@click.pass_obj
def load(state: State, path: Path, *, replace: bool) -> None:
    """Load your own prices from FILE: YAML, TOML or JSON.

    A price replaces the stored one of the same provider, model, service tier and valid_from.
    Costs that are stored already stay until `prices recompute`.
    """
    output = state.output()
    with state.pool() as pool:
        loaded = load_prices(pool, path, replace=replace)
    if output.json:
        output.write(asdict(loaded))
    else:
        output.show(Text(_counts_of(loaded)))


@command.command("import", cls=StorageCommand)
@json_option
@common_options
@click.pass_obj
def import_package(state: State) -> None:
    """Load the prices of the installed package genai-prices.

    The extra `prices` installs it. They replace those of its last version; your own come first. No
    network is used.
    """
    output = state.output()
    with state.pool() as pool:
        loaded = load_package_prices(pool)
    if output.json:
        output.write(asdict(loaded))
        return
    output.show(Text(_counts_of(loaded)))
    if loaded.left_out:
        errors = new_console(stderr=True)
        for reason in loaded.left_out[:_SHOWN_REASONS]:
            errors.print(Text(f"left out: {reason}"))
        if more := len(loaded.left_out) - _SHOWN_REASONS:
            errors.print(Text(f"left out: {more} more, which --json lists"))


def _counts_of(loaded: LoadedPrices) -> str:
    return (
        f"{loaded.source}: {counted(loaded.prices, 'price')}, {loaded.new:,} new,"
        f" {loaded.changed:,} changed, {loaded.removed:,} removed"
    )


@command.command("list", cls=StorageCommand)
@click.option("--provider", help="Prices of this provider alone.")
@click.option("--own", is_flag=True, help="Your own prices alone, without those of packages.")
@json_option
@common_options
@click.pass_obj
def list_prices(state: State, provider: str | None, *, own: bool) -> None:
    """List the stored prices, in US dollars per million tokens."""
    output = state.output()
    with state.pool() as pool:
        prices = _all(pool.prices.current())
    wanted = [
        price
        for price in prices
        if (price.is_own or not own) and provider in (None, price.provider)
    ]
    wanted.sort(key=_order)
    if output.json:
        output.write_all(_document(wanted))
    else:
        output.show(_prices_table(wanted))


@command.command("show", cls=StorageCommand)
@click.argument("model")
@click.option("--provider", help="The provider of the call. [the maker of the model]")
@click.option("--service-tier", help="The service tier of the call. [the standard one]")
@click.option("--at", type=option_types.time, help="Only the price of this time. [all times]")
@json_option
@common_options
@click.pass_obj
def show(
    state: State, model: str, provider: str | None, service_tier: str | None, at: datetime | None
) -> None:
    """Show the prices that a call of MODEL may have, in the order in which they are tried.

    The first one that is valid when the call starts applies.
    """
    output = state.output()
    with state.pool() as pool:
        prices = pool.prices.current() or PriceTable(())
    found = prices.prices_of(provider, model, None, service_tier_of(service_tier))
    if at is not None:
        found = [price for price in found if price.is_valid(at)][:1]
    if output.json:
        output.write_all(_document(found))
    else:
        output.show(_prices_table(found))


@command.command("unpriced", cls=StorageCommand)
@click.option(
    "--since",
    "start_time",
    type=option_types.time,
    default="1d",
    help="Calls from this time on. [1d]",
)
@click.option("--until", "end_time", type=option_types.time, help="Calls before this. [now]")
@click.option("--limit", type=click.IntRange(1, 2**31 - 1), default=100, help="[100]")
@json_option
@common_options
@click.pass_obj
def unpriced(
    state: State, start_time: datetime | None, end_time: datetime | None, limit: int
) -> None:
    """List the models of the last day whose calls have tokens and no cost."""
    output = state.output()
    with state.pool() as pool, pool.unit_of_work() as work:
        found = work.metrics.get_unpriced_models(start_time, end_time, limit=limit)
    if output.json:
        output.write_all(found)
    else:
        output.show(_unpriced_table(found))


@command.command("recompute", cls=StorageCommand)
@click.option(
    "--since",
    "--start",
    "start",
    type=option_types.time,
    help="Spans that start then or later. [the oldest]",
)
@click.option(
    "--until", "--end", "end", type=option_types.time, help="Before this time. [no bound]"
)
@click.option(
    "--max-spans",
    type=click.IntRange(min=1),
    help="Stop after so many spans, and say where the next run continues.",
)
@json_option
@common_options
@click.pass_obj
def recompute(
    state: State, start: datetime | None, end: datetime | None, max_spans: int | None
) -> None:
    """Compute costs of stored spans again, with the prices as they are now.

    Costs that were told stay. It works in small transactions beside writers. What is right already
    is left alone, so it can be interrupted and repeated.
    """
    show_resumable(
        state,
        lambda pool, note: recompute_costs(pool, start, end, max_spans=max_spans, progress=note),
    )


def _all(prices: PriceTable | None) -> Iterable[Price]:
    return () if prices is None else prices.prices


def _order(price: Price) -> tuple[str, str, str, datetime]:
    start = price.valid_from or datetime.min.replace(tzinfo=UTC)
    return price.provider or "", price.model.lower(), price.service_tier or "", start


def _document(prices: Sequence[Price]) -> list[dict[str, object]]:
    return [asdict(price) for price in prices]


def _prices_table(prices: Sequence[Price]) -> RenderableType:
    columns = [
        Column("PROVIDER", narrowest=10, keep=6),
        Column("MODEL", narrowest=16, keep=9),
        Column("TIER", keep=3),
        Column("FROM (UTC)", keep=5),
        Column("UNTIL", keep=4),
        Column("INPUT", right=True, keep=8),
        Column("OUTPUT", right=True, keep=8),
        Column("CACHED", right=True, keep=7),
        Column("SOURCE", keep=2),
    ]
    rows = (
        [
            price.provider or "any",
            price.model,
            price.service_tier or "-",
            "-" if price.valid_from is None else moment(price.valid_from),
            "-" if price.valid_to is None else moment(price.valid_to),
            *(_rate(price, rate) for rate in ("input", "output", "cache_read")),
            price.source,
        ]
        for price in prices
    )
    return table(columns, rows)


def _rate(price: Price, rate: str) -> str:
    dollars = {str(name): value for name, value in price.rates.items()}.get(rate)
    if dollars is None:
        return "-"
    tiered = any(rate in tier.rates for tier in price.tiers)
    return f"{dollars:f}{'+' if tiered else ''}"


def _unpriced_table(found: Sequence[UnpricedModel]) -> RenderableType:
    columns = [
        Column("PROVIDER", narrowest=10, keep=6),
        Column("MODEL", narrowest=16, keep=9),
        Column("TIER", keep=3),
        Column("CALLS", right=True, keep=7),
        Column("TOKENS", right=True, keep=8),
        Column("FIRST (UTC)", keep=2),
        Column("LAST (UTC)", keep=4),
    ]
    rows = (
        [
            each.provider or "-",
            each.model or "-",
            each.service_tier or "-",
            count(each.span_count),
            count(each.total_tokens),
            moment(each.first_seen),
            moment(each.last_seen),
        ]
        for each in found
    )
    return table(columns, rows)
