r"""Full-text search of prompts and completions: their attributes, and the tsvector expression.

Instrumentations report prompts and completions in attributes of the span or of its events, as text,
as structures, or as JSON in text, whole or flattened into many attributes
(``llm.input_messages.0.message.content``).

The expression must not fail for any value, because an index on it would refuse the row. Therefore
the text is limited (a tsvector holds at most 1 MB) and the JSON path is silent. JSON in text is not
parsed, but its escapes are replaced: ``caf\u00e9`` is found as "café", and a backslash with b, f,
n, r or t is white space.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, SQLColumnExpression, Text, TextClause, cast, func, text

__all__ = ["COMPLETIONS", "PROMPTS", "content_vector"]

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
# JSON in text in JSON has several backslashes before an escape.
_RUN: Final = r"\\+u"
# Backslashes, and what they escape unless it is a character beyond ASCII (surrogates are no part
# of a word): `unistr` refuses every other escape.
_ESCAPES: Final = r"\\+(?!u(?!00[0-7]|[dD][89a-fA-F])[0-9a-fA-F]{4})(u[0-9a-fA-F]{4}|[bfnrt])?"


def content_vector(attributes: SQLColumnExpression[Any]) -> ColumnElement[Any]:
    """The words of the prompts and completions among attributes: an immutable expression.

    An index is built on it, and a search must repeat it.
    """
    asked = func.right(_values(attributes, PROMPTS), text(str(_CHARACTERS)))
    answered = func.left(_values(attributes, COMPLETIONS), text(str(_CHARACTERS)))
    both: ColumnElement[str] = asked.concat(text("' '")).concat(answered)
    for pattern, instead in ((_RUN, r"\\u"), (_ESCAPES, " ")):
        both = func.regexp_replace(both, _quoted(pattern), _quoted(instead), text("'g'"))
    return func.to_tsvector(text("'simple'::regconfig"), func.unistr(both))


def _values(attributes: SQLColumnExpression[Any], names: tuple[str, ...]) -> ColumnElement[str]:
    wanted = " || ".join(f'@.key starts with "{name}"' for name in names)
    path = _quoted(f"$.keyvalue() ? ({wanted}).value")
    silently = (text("'{}'"), text("true"))
    return cast(func.jsonb_path_query_array(attributes, path, *silently), Text)


def _quoted(constant: str) -> TextClause:
    # A literal, because an expression with a parameter would not match the index's.
    return text(f"'{constant}'")
