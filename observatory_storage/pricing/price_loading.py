"""Stores prices: those of a file, and those of a package."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final, Protocol

import sqlalchemy as sa

from observatory_storage import layout
from observatory_storage.errors import ValidationError, translated
from observatory_storage.pricing.package_prices import PACKAGE, read_package_prices
from observatory_storage.pricing.price import USER, Price
from observatory_storage.pricing.price_book import PriceBook
from observatory_storage.pricing.price_files import read_price_file
from observatory_storage.pricing.stored_prices import PRICES, price_id, price_of_row, row_of_price
from observatory_storage.serialization import Result

__all__ = ["LoadedPrices", "load_package_prices", "load_prices"]

_MIN: Final = datetime.min.replace(tzinfo=UTC)
_MAX: Final = datetime.max.replace(tzinfo=UTC)


class Source(Protocol):
    """The attributes of a pool that loading needs."""

    @property
    def engine(self) -> sa.Engine: ...
    @property
    def schema(self) -> str: ...
    @property
    def prices(self) -> PriceBook: ...


@dataclass(frozen=True, slots=True)
class LoadedPrices(Result):
    """The result of `load_prices` and `load_package_prices`.

    Attributes:
        source: "user", or the name and version of the package.
        prices: the number of prices in the file or the package.
        new: the number of prices that were not stored before.
        changed: the number of stored prices that were changed.
        removed: the number of stored prices that were removed.
        left_out: models of the package whose prices do not fit, with the reason.
    """

    source: str
    prices: int
    new: int
    changed: int
    removed: int
    left_out: tuple[str, ...] = ()


def load_prices(
    pool: Source, path: str | os.PathLike[str], *, replace: bool = False
) -> LoadedPrices:
    """Store your own prices from a YAML, TOML or JSON file, in one transaction.

    A price replaces the stored one of the same provider, model, service tier and ``valid_from``.
    Repeating the call changes nothing. Writers of this process use the prices at once, those of
    other processes within a minute. Costs that are stored already stay; see `recompute_costs`.

    Example::

        load_prices(pool, "prices.yaml")

    Args:
        pool: the pool.
        path: the file. The page about pricing describes it.
        replace: also remove your own prices that are not in the file. Prices of packages stay.

    Raises:
        ValidationError: the file cannot be read, an entry is not valid, or two prices of one model
            are valid at the same time. Nothing is stored.
        StorageError: the database could not be used. Nothing is stored.
    """
    return _store(pool, USER, read_price_file(path), replace=replace)


def load_package_prices(pool: Source) -> LoadedPrices:
    """Store the prices of the package ``genai-prices``, which the extra ``prices`` installs.

    They replace those of an earlier version of the package. Your own prices come before them. No
    network is used: the prices are those of the installed version.

    Raises:
        ConfigError: the package is not installed.
        StorageError: the database could not be used. Nothing is stored.
    """
    source, prices, left_out = read_package_prices()
    loaded = _store(pool, PACKAGE, prices, replace=True)
    return LoadedPrices(
        source, loaded.prices, loaded.new, loaded.changed, loaded.removed, tuple(left_out)
    )


def _store(pool: Source, origin: str, prices: Sequence[Price], *, replace: bool) -> LoadedPrices:
    given = {price_id(price): price for price in prices}
    _refuse_overlaps([(f"prices[{index}]", price) for index, price in enumerate(prices)])
    of_origin = sa.or_(PRICES.c.source == origin, PRICES.c.source.startswith(f"{origin} "))
    with translated(), pool.engine.begin() as connection:
        # Two programs that load at once could store prices that overlap.
        layout.lock(connection, "prices", pool.schema)
        stored = {
            row["id"]: {column: value for column, value in row.items() if column != "loaded_at"}
            for row in connection.execute(sa.select(PRICES).where(of_origin)).mappings()
        }
        rows = {key: row_of_price(price) for key, price in given.items()}
        gone = [key for key in stored if key not in rows] if replace else []
        kept = [("stored", price_of_row(row)) for key, row in stored.items() if key not in rows]
        if kept and not replace:
            _refuse_overlaps(
                [(f"prices[{index}]", price) for index, price in enumerate(prices)] + kept
            )
        new = [row for key, row in rows.items() if key not in stored]
        changed = [row for key, row in rows.items() if key in stored and row != stored[key]]
        if gone:
            connection.execute(sa.delete(PRICES).where(PRICES.c.id.in_(gone)))
        for row in changed:
            values: dict[Any, Any] = {**row, "loaded_at": sa.func.now()}
            connection.execute(sa.update(PRICES).where(PRICES.c.id == row["id"]).values(values))
        if new:
            connection.execute(sa.insert(PRICES), new)
    pool.prices.forget()
    return LoadedPrices(origin, len(prices), len(new), len(changed), len(gone))


def _refuse_overlaps(prices: Sequence[tuple[str, Price]]) -> None:
    """Make sure that no two prices of one key are valid at the same time.

    Raises:
        ValidationError: names both.
    """
    for (place, one), (other_place, other) in pairwise(sorted(prices, key=_in_order)):
        if _in_order((place, one))[:-1] != _in_order((other_place, other))[:-1]:
            continue
        if (one.valid_to or _MAX) > (other.valid_from or _MIN):
            # The field that is to change is one of the file.
            named, rest = (other_place, other), (place, one)
            if other_place == "stored":
                named, rest = rest, named
            raise ValidationError(
                f"{named[0]}.valid_from",
                named[1].valid_from,
                f"overlaps another price: {_shown(*named)} and {_shown(*rest)};"
                " give the earlier one a valid_to",
            )


def _in_order(named: tuple[str, Price]) -> tuple[str, str, str, datetime]:
    _, price = named
    start = price.valid_from or _MIN
    return price.provider or "", price.model.lower(), price.service_tier or "", start


def _shown(place: str, price: Price) -> str:
    name = " ".join(filter(None, (price.provider, price.model, price.service_tier)))
    start = "the beginning" if price.valid_from is None else price.valid_from.isoformat()
    end = "" if price.valid_to is None else f" until {price.valid_to.isoformat()}"
    return f"{place} ({name} from {start}{end})"
