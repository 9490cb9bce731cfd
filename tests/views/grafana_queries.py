"""The queries of the dashboards, and what Grafana makes of one before its data source sends it.

Grafana first replaces the variables of the dashboard. The data source then replaces the interval
and the macros, which it finds as `$name(arguments)` without parentheses in the arguments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import observatory_storage

__all__ = ["ALL", "DASHBOARDS", "QUERIES", "Query", "expanded", "panels_of"]

FOLDER = Path(observatory_storage.__file__).parent / "grafana"
DASHBOARDS: dict[str, dict[str, Any]] = {
    path.name: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted(FOLDER.glob("*.json"))
}
# The value of a variable of which everything is selected.
ALL = "$__all"
_VARIABLE = re.compile(r"\$\{(\w+)(?::(\w+))?\}")
_MACRO = re.compile(r"\$([_a-zA-Z0-9]+)\(([^)]*)\)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

Values = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True)
class Query:
    """A query of a dashboard: of a panel, or of a variable.

    Attributes:
        source: the type of its data source.
        format: "table" or "time_series".
    """

    dashboard: str
    title: str
    source: str
    text: str
    format: str

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.title}"


def panels_of(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels, also those in rows."""
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", ())


def _queries() -> Iterator[Query]:
    for name, dashboard in DASHBOARDS.items():
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                source = variable["datasource"]["type"]
                yield Query(name, variable["label"], source, variable["query"], "table")
        for panel in panels_of(dashboard):
            for target in panel.get("targets", ()):
                text = target.get("rawSql") or target.get("expr", "")
                source = target["datasource"]["type"]
                yield Query(name, panel["title"], source, text, target.get("format", "table"))


QUERIES = list(_queries())


def expanded(query: Query, values: Values, start: datetime, end: datetime, interval: str) -> str:
    """The statement that PostgreSQL gets.

    Args:
        values: a list for each variable that takes several, or `ALL`; a text for the others.
    """
    variables = {
        variable["name"]: variable for variable in DASHBOARDS[query.dashboard]["templating"]["list"]
    }

    def value_of(found: re.Match[str]) -> str:
        name, format_name = found.groups()
        assert format_name == "sqlstring", "other formats quote in some versions only"
        value = values[name]
        if value == ALL:
            return str(variables[name]["allValue"])  # which is never quoted
        texts = [value] if isinstance(value, str) else value
        return ",".join("'" + text.replace("'", "''") + "'" for text in texts)

    text = _VARIABLE.sub(value_of, query.text)
    text = text.replace("$__interval", interval)
    macros = _Macros(f"'{_rfc3339(start)}'", f"'{_rfc3339(end)}'")
    return _MACRO.sub(
        lambda found: macros.value(found[1], [each.strip(" ") for each in found[2].split(",")]),
        text,
    )


@dataclass(frozen=True)
class _Macros:
    start: str
    end: str

    def value(self, name: str, arguments: list[str]) -> str:
        match name, arguments:
            case "__timeFilter", [column]:
                return f"{column} BETWEEN {self.start} AND {self.end}"
            case "__timeFrom", [""]:
                return self.start
            case "__timeTo", [""]:
                return self.end
            case "__timeGroupAlias", [column, interval, *_]:
                return f'{self._group(column, interval)} AS "time"'
            case "__timeGroup", [column, interval, *_]:
                return self._group(column, interval)
        raise AssertionError(f"Grafana has no macro ${name}({', '.join(arguments)})")

    def _group(self, column: str, interval: str) -> str:
        number, unit = re.fullmatch(r"'?(\d+)([smhd])'?", interval).groups()  # type: ignore[union-attr]
        seconds = int(number) * _SECONDS[unit]
        return f"floor(extract(epoch from {column})/{seconds})*{seconds}"


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
