"""Parsers of configuration files. Their errors give a position and never quote the text."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from typing import Any

from observatory_storage.config.unreadable import UnreadableError

__all__ = ["PARSERS"]


def _parse_yaml(text: str) -> Any:
    # Few processes read YAML, and importing it takes longer than all other parsers together.
    from observatory_storage.config.yaml_parser import parse_yaml

    return parse_yaml(text)


def _parse_toml(text: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # Keep only the position: "… (at line 3, column 5)".
        _, _, position = str(error).rpartition("(at ")
        raise UnreadableError(f"{position.rstrip(')')}: is not TOML") from None


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique_pairs)
    except json.JSONDecodeError as error:
        raise UnreadableError(f"line {error.lineno}, column {error.colno}: is not JSON") from None


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise UnreadableError("a group has the same key twice")
    return found


PARSERS: dict[str, Callable[[str], Any]] = {
    ".yaml": _parse_yaml,
    ".yml": _parse_yaml,
    ".toml": _parse_toml,
    ".json": _parse_json,
}
