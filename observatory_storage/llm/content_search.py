r"""Searches of prompts and completions: their attributes, and the tsvector expression.

Instrumentations report prompts and completions in attributes of the span or of its events, as text,
as structures, or as JSON in text, whole or flattened into many attributes
(``llm.input_messages.0.message.content``).

The expression must not fail for any value: an index on it would refuse the row. Hence the limits (a
tsvector holds at most 1 MB), the silent path, and no parsing of JSON in text, only of its escapes:
``caf\u00e9`` is found as "café". A backslash with b, f, n, r or t is white space in JSON. In text
that is not JSON it begins a word, such as ``\frac``. The two cannot be told apart, so both words
(``frac`` and ``rac``) are indexed.
"""

from __future__ import annotations

import json
from functools import lru_cache
from itertools import product
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    SQLColumnExpression,
    Text,
    cast,
    column,
    exists,
    func,
    or_,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from observatory_storage.models.search_words import matches, quoted, substring_pattern, words_of

__all__ = ["COMPLETIONS", "PROMPTS", "contains", "content_vector", "has_literally"]

# Attributes whose names begin with these contain prompts: messages, instructions, arguments.
PROMPTS: Final = (
    "gen_ai.input.messages",
    "gen_ai.system_instructions",
    "gen_ai.prompt",
    "gen_ai.event.content",
    "gen_ai.tool.call.arguments",
    "llm.input_messages",
    "llm.prompts",
    "llm.prompt_template",
    "input.value",
    "ai.prompt",
    "traceloop.entity.input",
)
# Attributes whose names begin with these contain completions.
COMPLETIONS: Final = (
    "gen_ai.output.messages",
    "gen_ai.completion",
    "gen_ai.tool.call.result",
    "llm.output_messages",
    "llm.completions",
    "output.value",
    "ai.response.text",
    "ai.response.object",
    "ai.response.toolCalls",
    "ai.result",
    "traceloop.entity.output",
)

# The limit for prompts and for completions, so that a long prompt does not hide its completion. The
# end of a prompt is kept, since the newest message of a conversation is there.
_CHARACTERS: Final = 50_000
# The number of levels of JSON within JSON strings that are searched for a substring.
_JSON_IN_JSON: Final = 2
# In nested JSON strings, an escape has several backslashes.
_RUN: Final = r"\\+u"
# A word after two backslashes. A single backslash stands for white space.
_WORD: Final = r"\\{2,}([bfnrt])([[:alnum:]]+)"
# Two surrogates, which together are one character, such as an emoji.
_HIGH: Final = r"u[dD][89abAB][0-9a-fA-F]{2}"
_LOW: Final = r"u[dD][c-fC-F][0-9a-fA-F]{2}"
# Backslashes, and what they escape unless it is a character beyond ASCII: `unistr` refuses every
# other escape, also one of two surrogates alone.
_ESCAPES: Final = (
    r"\\+(?!u(?!00[0-7]|[dD][89a-fA-F])[0-9a-fA-F]{4}"
    rf"|{_HIGH}\\{_LOW}|(?<=\\{_HIGH}\\){_LOW})"
    r"(u[0-9a-fA-F]{4}|[bfnrt])?"
)


@lru_cache(maxsize=32)  # an alias of a statement has attributes of its own
def content_vector(
    attributes: SQLColumnExpression[Any], *, words_twice: bool = True
) -> ColumnElement[Any]:
    """The words of the prompts and completions among attributes: an immutable expression.

    An index is built on it, and a search must repeat it.

    Args:
        words_twice: include a word after a backslash both with and without its first letter.
            Adjacent words may then have another word between them.
    """
    both = content_text(attributes)
    twice = ((_WORD, r" \1\2 \2"),) if words_twice else ()
    for pattern, instead in (*twice, (_RUN, r"\\u"), (_ESCAPES, " ")):
        both = func.regexp_replace(both, quoted(pattern), quoted(instead), quoted("g"))
    return words_of(func.unistr(both))


def content_text(attributes: SQLColumnExpression[Any]) -> ColumnElement[str]:
    """The prompts and completions among attributes, as JSON in text, each side up to a limit."""
    asked = func.right(_values(attributes, PROMPTS), text(str(_CHARACTERS)))
    answered = func.left(_values(attributes, COMPLETIONS), text(str(_CHARACTERS)))
    return asked.concat(text("' '")).concat(answered)


def has_literally(attributes: SQLColumnExpression[Any], value: str) -> ColumnElement[bool]:
    """Whether the searched text contains a value, ignoring backslashes.

    Nested JSON strings have any number of backslashes, so backslashes are not significant.
    """
    plain = func.replace(content_text(attributes), quoted("\\"), quoted(""))
    written = {one.replace("\\", "") for one in _in_json({value, *_cases(value)})}
    return or_(*(matches(plain, substring_pattern(one)) for one in sorted(written)))


def contains(attributes: SQLColumnExpression[Any], value: str) -> ColumnElement[bool]:
    """Whether a prompt or a completion has a substring, in upper or lower case.

    If the prompt is a string of JSON, the values in that JSON are searched.
    """
    path = f'{_path((*PROMPTS, *COMPLETIONS))}.** ? (@.type() == "string" || @.type() == "number")'
    silently = (text("'{}'"), text("true"))
    found = func.jsonb_path_query(attributes, quoted(path), *silently)
    values = found.table_valued(column("value", JSONB)).render_derived("content")
    shown = values.c.value.op("#>>", return_type=Text())(text("'{}'"))
    written = {value}
    escaped = {value, *_cases(value)}
    for _ in range(_JSON_IN_JSON):
        escaped = _in_json(escaped)
        written |= escaped
    patterns = (matches(shown, substring_pattern(one)) for one in sorted(written))
    return exists().select_from(values).where(or_(*patterns))


def _cases(value: str) -> tuple[str, str]:
    # An escape such as \\u00e9 has no other case: it is searched for in lower and in upper case.
    return value.lower(), value.upper()


def _in_json(values: set[str]) -> set[str]:
    """The values as they are written within JSON strings, with escapes beyond ASCII or without."""
    choices = product(values, (False, True))
    return {json.dumps(one, ensure_ascii=ascii_only)[1:-1] for one, ascii_only in choices}


def _path(names: tuple[str, ...]) -> str:
    wanted = " || ".join(f'@.key starts with "{name}"' for name in names)
    return f"$.keyvalue() ? ({wanted}).value"


def _values(attributes: SQLColumnExpression[Any], names: tuple[str, ...]) -> ColumnElement[str]:
    silently = (text("'{}'"), text("true"))
    return cast(func.jsonb_path_query_array(attributes, quoted(_path(names)), *silently), Text)
