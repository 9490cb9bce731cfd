"""Rebuilds lists that were flattened into attributes such as ``llm.prompts.0.prompt.text``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["unflattened"]


def unflattened(attributes: Mapping[str, Any], name: str) -> list[Any] | None:
    """The list whose elements are attributes under the name; None if there is none."""
    prefix = f"{name}."
    root: dict[str, Any] = {}
    for key, value in attributes.items():
        if not key.startswith(prefix):
            continue
        *path, last = key.removeprefix(prefix).split(".")
        if not (path[0] if path else last).isdecimal():
            continue
        node = root
        for step in path:
            inner = node.setdefault(step, {})
            if not isinstance(inner, dict):  # a value, and values below its name
                inner = node[step] = {}
            node = inner
        node.setdefault(last, value)
    return _as_list(root) if root else None


def _as_list(node: dict[str, Any]) -> list[Any]:
    indexes = sorted((key for key in node if key.isdecimal()), key=int)
    return [_plain(node[index]) for index in indexes]


def _plain(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if node and all(key.isdecimal() for key in node):
        return _as_list(node)
    return {key: _plain(value) for key, value in node.items()}
