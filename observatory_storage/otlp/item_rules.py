"""Applies the rules of the configuration to the items of a request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from observatory_storage.otlp.resource_scope import Item
from observatory_storage.rows import Rules
from observatory_storage.tables import TableDefinition

__all__ = ["by_rules"]


def by_rules(rules: Rules | None, table: TableDefinition, items: Iterable[Item]) -> Iterator[Item]:
    """The items as they are to be written. One that a rule drops has neither row nor error."""
    return iter(items) if rules is None else (_by_rules(rules, table, item) for item in items)


def _by_rules(rules: Rules, table: TableDefinition, item: Item) -> Item:
    if item.row is None:
        return item
    row = rules.applied(table, item.row)
    return item._replace(row=None if row is None else dict(row))
