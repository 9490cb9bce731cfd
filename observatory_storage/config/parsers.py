"""Parsers of configuration files. Their errors give a position and never quote the text."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Hashable
from typing import Any

import yaml


class UnreadableError(Exception):
    """The text does not parse. The message does not quote it, since it may contain a secret."""


class _UniqueKeysLoader(yaml.SafeLoader):
    """Refuses a duplicate key in a group. PyYAML would silently keep the last one."""

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,
    ) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise UnreadableError(f"line {key.start_mark.line + 1}: the key is there twice")
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _parse_yaml(text: str) -> Any:
    try:
        # A subclass of SafeLoader: it builds plain values only.
        return yaml.load(text, Loader=_UniqueKeysLoader)  # noqa: S506 - it is a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        raise UnreadableError(
            f"{line}: is not YAML; quote values that have special characters"
        ) from None
    except (yaml.YAMLError, ValueError):  # ValueError: for example, a date that does not exist
        raise UnreadableError("is not YAML; quote values that have special characters") from None


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
