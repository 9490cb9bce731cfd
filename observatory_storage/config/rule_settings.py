"""The section `rules`: what is dropped, renamed or redacted before rows are written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from observatory_storage.config.config_model import ConfigModel
from observatory_storage.config.fields import Env
from observatory_storage.config.problems import RuleError

Signal = Literal["spans", "events", "logs", "metrics"]


def _not_empty(value: str) -> str:
    if not value:
        raise RuleError("must not be empty")
    return value


def _pattern(value: str) -> str:
    try:
        compiled = re.compile(value)
    except (re.error, RecursionError, OverflowError) as error:
        raise RuleError(f"must be a regular expression of Python: {error}") from None
    if compiled.search(""):
        raise RuleError("must not match an empty text: every text would match")
    return value


def _as_json(value: Any) -> Any:
    """The value of a variable, which is text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise RuleError(f"must be JSON: {error}") from None


def _names(value: Any) -> Any:
    """A list that a variable has as JSON, or as names with commas between them."""
    if not isinstance(value, str) or value.lstrip().startswith("["):
        return _as_json(value)
    return [name.strip() for name in value.split(",")]


def _each(key: str) -> Callable[[Any], Any]:
    """Let the items of a list be text, which is the value of this key."""

    def expand(value: Any) -> Any:
        value = _as_json(value)
        if not isinstance(value, (list, tuple)):
            return value
        return [{key: item} if isinstance(item, str) else item for item in value]

    return expand


Glob = Annotated[str, AfterValidator(_not_empty)]
Pattern = Annotated[str, AfterValidator(_pattern)]


class DropRule(ConfigModel):
    """Drops the spans, events of spans, log records or metrics that meet all given conditions.

    In `scope`, `name` and `attribute`, ``*`` stands for any characters.

    Attributes:
        signal: "spans", "events", "logs" or "metrics"; None for all of them.
        scope: the name of the instrumentation scope.
        name: the name of the span, event or metric, or the event name of the log record.
        attribute: the key of an attribute that the item, its resource or its scope has.
        pattern: a regular expression that is found in the value of this attribute; without
            `attribute`, in any text of the item.

    Raises:
        ConfigError: a value is invalid, or there is no condition.
    """

    signal: Signal | None = None
    scope: Glob | None = None
    name: Glob | None = None
    attribute: Glob | None = None
    pattern: Pattern | None = None

    @model_validator(mode="after")
    def _has_condition(self) -> Self:
        if self.scope is self.name is self.attribute is self.pattern is None:
            raise RuleError("must have one of scope, name, attribute and pattern")
        return self


class RedactRule(ConfigModel):
    r"""Replaces what a regular expression finds in texts.

    Attributes:
        pattern: the regular expression, in Python's syntax.
        replacement: the text instead of it, with ``\1`` or ``\g<name>`` for groups.
        attribute: the key of the attributes in which it is sought, with ``*`` for any characters;
            None for all texts.

    Raises:
        ConfigError: a value is invalid.
    """

    pattern: Pattern
    replacement: str = "[redacted]"
    attribute: Glob | None = None

    @field_validator("replacement")
    @classmethod
    def _fits_pattern(cls, value: str, info: ValidationInfo) -> str:
        if "pattern" in info.data:
            try:
                # The empty alternative matches, so that the replacement is looked at.
                re.compile(info.data["pattern"] + "\n|").sub(value, "")
            except (re.error, IndexError) as error:
                raise RuleError(f"must be a replacement for the pattern: {error}") from None
        return value


class RulesConfig(ConfigModel):
    """Rules for what is written, whichever way it comes.

    They are applied in the order of the settings: items are dropped, then attributes, then
    attributes are renamed, and so on.

    Example::

        RulesConfig(
            drop=[DropRule(name="GET /health*")],
            drop_attributes=["http.request.header.*"],
            rename_attributes={"my.model": "gen_ai.request.model"},
            redact=[RedactRule(pattern=r"sk-[A-Za-z0-9]{20,}")],
        )

    Raises:
        ConfigError: a value is invalid. It lists all problems.
    """

    section = ("rules",)

    drop: Annotated[Sequence[DropRule], BeforeValidator(_as_json), Env("OBSERVATORY_DROP")] = Field(
        default=(), description="Items to drop, each a group of conditions."
    )
    drop_attributes: Annotated[
        Sequence[Glob], BeforeValidator(_names), Env("OBSERVATORY_DROP_ATTRIBUTES")
    ] = Field(default=(), description="Keys of attributes to drop; * stands for any characters.")
    rename_attributes: Annotated[
        Mapping[Glob, Glob], BeforeValidator(_as_json), Env("OBSERVATORY_RENAME_ATTRIBUTES")
    ] = Field(default_factory=dict, description="New keys of attributes, by their present keys.")
    redact: Annotated[
        Sequence[RedactRule], BeforeValidator(_each("pattern")), Env("OBSERVATORY_REDACT")
    ] = Field(default=(), description="Regular expressions to replace in texts.")
    drop_contents: Annotated[bool, Env("OBSERVATORY_DROP_CONTENTS")] = Field(
        default=False, description="Whether prompts and completions are dropped."
    )

    @field_validator("rename_attributes")
    @classmethod
    def _names_differ(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        same = next((old for old, new in value.items() if old == new), None)
        if same is not None:
            raise RuleError(f"must have another name for {same}")
        return value

    @property
    def is_empty(self) -> bool:
        """Whether there is no rule."""
        return not (
            self.drop
            or self.drop_attributes
            or self.rename_attributes
            or self.redact
            or self.drop_contents
        )
