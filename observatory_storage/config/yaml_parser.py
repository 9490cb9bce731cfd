"""The parser of YAML."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from observatory_storage.config.unreadable import UnreadableError

__all__ = ["parse_yaml"]


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


def parse_yaml(text: str) -> Any:
    """The values of a YAML document, which are plain.

    Raises:
        UnreadableError: the text does not parse, or a group has the same key twice.
    """
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
