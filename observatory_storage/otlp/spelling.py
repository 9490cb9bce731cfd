"""Recognises fields that OTLP/JSON has under another spelling: ``trace_id``, ``StringValue``.

Receivers must ignore fields that they do not know, since a newer sender may use them. But a field
that is merely misspelt would lose data without a word, so it is refused, and the error tells the
right name. The fast readers know no spelling but the right one. So only what they do not accept is
looked at here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import fields

from observatory_storage.errors import ValidationError
from observatory_storage.otlp.message_types import AnyValue, KeyValue

__all__ = ["check_spelling"]

# The names of version 0.15 of OTLP and earlier, which old senders use.
_FORMER: Final = {
    "instrumentationLibrary": "scope",
    "instrumentationLibrarySpans": "scopeSpans",
    "instrumentationLibraryMetrics": "scopeMetrics",
    "instrumentationLibraryLogs": "scopeLogs",
}
_ANY_VALUE: Final = '"value": {"stringValue": "…"}'


def check_spelling(kind: type[Struct], given: Mapping[Any, Any], path: str) -> None:
    """Refuse a field that is one of the message's fields under another spelling.

    A field is not refused if the message has the right one too.

    Args:
        kind: the message.
        given: its parsed OTLP/JSON.
        path: the path of the message.

    Raises:
        ValidationError: names the field, and what its name must be.
    """
    known, meant = _spellings(kind)
    for name, value in given.items():
        if name in known or value is None:
            continue
        right = _FORMER.get(name) or meant.get(_folded(name))
        if right in known and given.get(right) is None:
            rule = f"must be named {right}"
        elif kind is KeyValue and given.get("value") is None and _is_member(name):
            rule = f"must stand in the value: {_ANY_VALUE}"
        elif kind is AnyValue and _folded(name) == "value" and known.isdisjoint(given):
            rule = f"must be one of {', '.join(sorted(known))}"
        else:
            continue
        raise ValidationError(f"{path}.{name}".lstrip("."), value, rule)


def _is_member(name: Any) -> bool:
    known, meant = _spellings(AnyValue)
    return name in known or _folded(name) in meant


@cache
def _spellings(kind: type[Struct]) -> tuple[frozenset[str], Mapping[str, str]]:
    """The names of the fields, and each by its folded name."""
    names = [field.encode_name for field in fields(kind)]
    meant = {_folded(name): name for name in names}
    if kind is AnyValue:  # {"string": "x"}
        meant |= {_folded(name.removesuffix("Value")): name for name in names}
    return frozenset(names), meant


def _folded(name: Any) -> str:
    """What spellings of a name have in common, in the singular and in the plural."""
    return str(name).replace("_", "").replace("-", "").lower().removesuffix("s")
