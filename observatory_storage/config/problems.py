"""Describes the problems of a configuration: each line names the setting and shows no secret.

The errors of pydantic keep the input, secrets included. So they are converted to text here, and
`ConfigError` carries only that text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from observatory_storage.config.fields import Key, settings_of
from observatory_storage.errors import ConfigError, shown


class RuleError(ValueError):
    """A value breaks a rule; `other` is the key of the section that the rule compares it with."""

    def __init__(self, text: str, other: str | None = None) -> None:
        super().__init__(text)
        self.other = other


@dataclass(frozen=True, slots=True)
class Origin:
    """The source of a value, and whether an error may show the value."""

    name: str
    shown: bool = True


@dataclass(slots=True)
class Loaded:
    """The origins of the values that settings sources gave, and the problems that they met."""

    origins: dict[Key, Origin] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


NOT_TEXT = "must be text (in a file: put it in quotes)"
_RULES = {
    "string_type": NOT_TEXT,
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "is too large",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "path_type": "must be the path of a file",
    "dict_type": "must be a group of keys",
    "is_instance_of": "must be a list",
    "list_type": "must be a list",
    "sequence_str": "must be a list",
    "mapping_type": "must be a group of keys",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "model_type": "must be a group of keys",
    "invalid_key": "is not a text key",
}
# Not a problem of its own: the default depends on another field, which failed.
_CONSEQUENCES = {"default_factory_not_called"}
# The path of such an error ends in a key that is not a setting.
_UNKNOWN = {"extra_forbidden", "invalid_key"}


def problems_of(
    error: ValidationError, model: type[BaseModel], prefix: Key, loaded: Loaded | None
) -> list[str]:
    """One line for each problem.

    Args:
        error: the error that pydantic raised for `model`.
        model: the model that could not be created.
        prefix: the key of the model in the whole configuration.
        loaded: the origins of the values, or None if they were passed in Python.
    """
    settings = settings_of(model, prefix)
    lines = []
    for found in error.errors(include_url=False):
        path = (*prefix, *(str(part) for part in found["loc"]))
        if found["type"] in _CONSEQUENCES:
            continue
        setting = settings.get(path)
        key, place = path, ""
        if setting is None and len(path) > 2:  # Within a setting that is a mapping or a list.
            setting = settings.get(path[:2])
            if setting is not None and not (loaded and path in loaded.origins):
                key, place = path[:2], _place(found["loc"][2 - len(prefix) :])
        if found["type"] in _UNKNOWN:
            if setting is not None and setting.item_keys:
                advice = _advice(path[-1], setting.item_keys)
                within = setting_name(key, settings, loaded) + place.rpartition(".")[0]
                lines.append(f"{within}.{shown_key(path[-1])}: unknown key; {advice}")
            else:
                lines.append(unknown_key(path, settings))
            continue
        origin = loaded.origins.get(key) if loaded else None
        visible = setting is not None and not setting.secret and (origin is None or origin.shown)
        line = setting_name(key, settings, loaded) + place
        if visible and _may_show(found["input"]):
            line += f" = {shown(found['input'])}"
        elif setting is not None and setting.secret:
            line += " (its value is not shown)"
        lines.append(f"{line}: {_rule(found, path, settings, loaded)}")
    return lines


def setting_name(key: Key, settings: Mapping[Key, Any], loaded: Loaded | None) -> str:
    """The name of a setting for an error: the origin of its value if known, else its key."""
    name = ".".join(key)
    if loaded is None:
        return name
    if key in loaded.origins:
        return loaded.origins[key].name
    setting = settings.get(key)
    if setting is None or not setting.variables:
        return name
    return f"{name} (not set; variable {setting.variables[0]})"


def unknown_key(path: Key, known: Iterable[Key], where: str = "") -> str:
    """A line about an unknown key, which suggests the most similar known key.

    It does not show the value, which may be a password under a misspelt name.
    """
    siblings = sorted({key[len(path) - 1] for key in known if _beside(key, path)})
    name = ".".join([*path[:-1], shown_key(path[-1])])
    return f"{where}{name}: unknown key; {_advice(path[-1], siblings)}"


def _advice(key: str, known: Sequence[str]) -> str:
    near = get_close_matches(key.lower(), known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"


def _place(loc: Iterable[int | str]) -> str:
    """The place of an item within a setting: ``[0].pattern``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)


def shown_key(key: str) -> str:
    """The key, if an error may show it.

    YAML reads ``password:hunter2`` as a key, since the blank after the colon is missing.
    """
    return key if re.fullmatch(r"[\w.-]{1,60}", key) else "(not a name)"


def raise_config_error(problems: Iterable[str]) -> None:
    """Raise a `ConfigError` that lists the problems, if there are any.

    Call it outside of any `except`, so that no error with secrets becomes its context.
    """
    lines = list(dict.fromkeys(problems))
    if len(lines) == 1:
        raise ConfigError(lines[0])
    if lines:
        raise ConfigError("\n  ".join([f"{len(lines)} problems in the configuration:", *lines]))


def _rule(
    found: Mapping[str, Any], path: Key, settings: Mapping[Key, Any], loaded: Loaded | None
) -> str:
    rule = found.get("ctx", {}).get("error")
    if isinstance(rule, RuleError) and rule.other is not None and loaded is not None:
        return f"{rule} ({setting_name((*path[:-1], rule.other), settings, loaded)})"
    if isinstance(rule, ValueError):
        return str(rule)
    text = _RULES.get(found["type"]) or found["msg"].replace("Input should", "must")
    if found["type"] == "model_type" and path == ("postgres",):
        text += "; a URL goes in DATABASE_URL or PostgresConfig.from_url()"
    return str(text)


def _may_show(value: object) -> bool:
    # A URL in the wrong variable, or a whole group under the wrong key, may contain a password.
    # None is not shown, since the line already says "not set".
    return isinstance(value, (str, int, float, Path)) and "://" not in str(value)


def _beside(key: Key, path: Key) -> bool:
    return len(key) >= len(path) and key[: len(path) - 1] == path[:-1]
