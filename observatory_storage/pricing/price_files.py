"""Reads prices from a file, strictly: an error names the entry, the field and the value."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, get_args

from observatory_storage.config.parsers import PARSERS
from observatory_storage.config.unreadable import UnreadableError
from observatory_storage.errors import ValidationError
from observatory_storage.llm.vocabulary import provider_of
from observatory_storage.pricing.price import INPUT_RATES, RATES, Price, PriceTier, Rate, TierScope
from observatory_storage.pricing.service_tiers import service_tier_of

__all__ = ["prices_of_document", "read_price_file"]

_MOST_NAME_BYTES: Final = 1024
_MOST_DECIMALS: Final = 30
_MOST_DOLLARS: Final = Decimal(10) ** 9
_MOST_TOKENS: Final = 2**63 - 1
_RATES_KEY: Final = "usd_per_million_tokens"
_ENTRY: Final = (
    *("provider", "model", "aliases", "service_tier", "valid_from", "valid_to"),
    *(_RATES_KEY, "usd_per_request", "tiers"),
)
_TIER: Final = ("above_input_tokens", "applies_to", _RATES_KEY)
_SCOPES: Final[tuple[TierScope, ...]] = get_args(TierScope)


def read_price_file(path: str | os.PathLike[str]) -> list[Price]:
    """The prices of a YAML, TOML or JSON file.

    Raises:
        ValidationError: the file cannot be read, or an entry is not valid.
    """
    file = Path(path)
    parse = PARSERS.get(file.suffix.lower())
    if parse is None:
        raise ValidationError("path", str(path), f"must end in {', '.join(PARSERS)}")
    try:
        document = parse(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValidationError("path", str(path), f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValidationError("path", str(path), "must be UTF-8 text") from error
    except UnreadableError as error:
        raise ValidationError("path", str(path), str(error)) from error
    return prices_of_document(document)


def prices_of_document(document: Any) -> list[Price]:
    """The prices of a file's content: a mapping with a list of entries under ``prices``.

    Raises:
        ValidationError: an entry is not valid.
    """
    if not isinstance(document, Mapping) or document.keys() != {"prices"}:
        raise ValidationError("prices", document, "must be the only key of the file, with a list")
    entries = document["prices"]
    if not isinstance(entries, list):
        raise ValidationError("prices", entries, "must be a list of entries")
    return [_price(entry, f"prices[{index}]") for index, entry in enumerate(entries)]


def _price(given: Any, place: str) -> Price:
    entry = _mapping(given, place, _ENTRY)
    rates = _rates(entry.get(_RATES_KEY), f"{place}.{_RATES_KEY}", RATES)
    per_request = entry.get("usd_per_request")
    if not rates and per_request is None:
        raise ValidationError(f"{place}.{_RATES_KEY}", entry.get(_RATES_KEY), "must not be empty")
    start = _moment(entry.get("valid_from"), f"{place}.valid_from")
    end = _moment(entry.get("valid_to"), f"{place}.valid_to")
    if start is not None and end is not None and end <= start:
        raise ValidationError(f"{place}.valid_to", end, f"must be after valid_from={start}")
    provider = entry.get("provider")
    return Price(
        model=_model(entry.get("model"), f"{place}.model"),
        provider=None if provider is None else _provider(provider, f"{place}.provider"),
        aliases=_aliases(entry.get("aliases", ()), f"{place}.aliases"),
        service_tier=_service_tier(entry.get("service_tier"), f"{place}.service_tier"),
        valid_from=start,
        valid_to=end,
        rates=rates,
        usd_per_request=(
            None if per_request is None else _dollars(per_request, f"{place}.usd_per_request")
        ),
        tiers=_tiers(entry.get("tiers", ()), f"{place}.tiers"),
    )


def _mapping(given: Any, place: str, keys: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise ValidationError(place, given, f"must be a mapping with any of {', '.join(keys)}")
    for key, value in given.items():
        if key not in keys:
            close = get_close_matches(str(key), keys, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(keys)}"
            raise ValidationError(f"{place}.{key}", value, f"is not a known key; {hint}")
    return given


def _name(given: Any, place: str) -> str:
    if not isinstance(given, str) or not given.strip():
        raise ValidationError(place, given, "must be a name")
    try:
        size = len(given.encode())
    except UnicodeEncodeError:
        raise ValidationError(place, given, "must not have a lone surrogate") from None
    if "\0" in given:
        raise ValidationError(place, given, "must not have a NUL")
    if size > _MOST_NAME_BYTES:
        raise ValidationError(place, given, f"must have at most {_MOST_NAME_BYTES} bytes of UTF-8")
    return given.strip()


def _model(given: Any, place: str) -> str:
    name = _name(given, place)
    if "*" in name:
        # It would be taken literally, and so match no call.
        rule = "must be the name of one model; a pattern with * goes into aliases"
        raise ValidationError(place, given, rule)
    return name


def _provider(given: Any, place: str) -> str:
    provider = provider_of(_name(given, place))
    if provider is None:
        raise ValidationError(place, given, "is a framework, not the provider of a model")
    return provider


def _aliases(given: Any, place: str) -> tuple[str, ...]:
    if not isinstance(given, (list, tuple)):
        raise ValidationError(place, given, "must be a list of names")
    names = tuple(_name(name, f"{place}[{index}]") for index, name in enumerate(given))
    for index, name in enumerate(names):
        if not name.strip("*"):
            raise ValidationError(f"{place}[{index}]", name, "would match every model")
    return names


def _service_tier(given: Any, place: str) -> str | None:
    return None if given is None else service_tier_of(_name(given, place))


def _moment(given: Any, place: str) -> datetime | None:
    """A date, which begins at midnight in UTC, or a time with a time zone."""
    value = given
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value) if len(value) > 10 else date.fromisoformat(value)
        except ValueError:
            value = None
    if given is None:
        return None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValidationError(place, given, "must have a time zone, such as Z for UTC")
        try:
            return value.astimezone(UTC)
        except OverflowError:
            rule = "must be within the years 1 to 9999 in UTC"
            raise ValidationError(place, given, rule) from None
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    raise ValidationError(place, given, "must be a date, or a time with a time zone")


def _dollars(given: Any, place: str) -> Decimal:
    if isinstance(given, bool) or not isinstance(given, (int, float, str, Decimal)):
        raise ValidationError(place, given, "must be a number of US dollars")
    try:
        # The shortest text of a double is what the file says; a price in quotes has all its digits.
        dollars = Decimal(repr(given) if isinstance(given, float) else given)
    except InvalidOperation:
        raise ValidationError(place, given, "must be a number of US dollars") from None
    if not dollars.is_finite() or not 0 <= dollars <= _MOST_DOLLARS:
        raise ValidationError(place, given, f"must be from 0 to {_MOST_DOLLARS:,}")
    exponent = dollars.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -_MOST_DECIMALS:
        raise ValidationError(place, given, f"must have at most {_MOST_DECIMALS} decimals")
    return dollars


def _rates(given: Any, place: str, known: Sequence[Rate]) -> dict[Rate, Decimal]:
    if given is None:
        return {}
    rates = _mapping(given, place, known)
    return {rate: _dollars(rates[rate], f"{place}.{rate}") for rate in known if rate in rates}


def _tiers(given: Any, place: str) -> tuple[PriceTier, ...]:
    if not isinstance(given, (list, tuple)):
        raise ValidationError(place, given, "must be a list of tiers")
    tiers = [_tier(tier, f"{place}[{index}]") for index, tier in enumerate(given)]
    starts: dict[Any, int] = {}
    for index, tier in enumerate(tiers):
        first = starts.setdefault((tier.applies_to, tier.above), index)
        if first != index:
            rule = f"must not be that of {place}[{first}]"
            raise ValidationError(f"{place}[{index}].above_input_tokens", tier.above, rule)
    return tuple(sorted(tiers, key=lambda tier: tier.above))


def _tier(given: Any, place: str) -> PriceTier:
    tier = _mapping(given, place, _TIER)
    above = tier.get("above_input_tokens")
    if type(above) is not int or not 0 <= above <= _MOST_TOKENS:
        rule = "must be a number of tokens, not negative"
        raise ValidationError(f"{place}.above_input_tokens", above, rule)
    scope = tier.get("applies_to")
    if scope not in _SCOPES:
        raise ValidationError(f"{place}.applies_to", scope, f"must be {' or '.join(_SCOPES)}")
    rates = _rates(tier.get(_RATES_KEY), f"{place}.{_RATES_KEY}", RATES)
    if not rates:
        raise ValidationError(f"{place}.{_RATES_KEY}", tier.get(_RATES_KEY), "must not be empty")
    if scope == "excess":
        for rate in rates.keys() - INPUT_RATES:
            rule = "must be a price of input tokens, because the tier applies to excess ones"
            raise ValidationError(f"{place}.{_RATES_KEY}.{rate}", rates[rate], rule)
    return PriceTier(above, scope, rates)
