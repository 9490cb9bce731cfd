"""Tells the attributes and log records that hold prompts and completions from all others."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from observatory_storage.llm.content_names import (
    COMPLETIONS,
    COMPLETIONS_OF_EVENTS,
    MESSAGE_EVENTS,
    PROMPTS,
    PROMPTS_OF_EVENTS,
)

__all__ = ["is_content", "reports_messages"]


def _any_of(names: Iterable[str]) -> re.Pattern[str]:
    patterns = (re.escape(name).replace(r"\*", "[0-9]+") for name in names)
    # What follows a number belongs to an element of a list that was flattened.
    return re.compile(
        "|".join(f"{one}.*" if one.endswith("+") else one for one in patterns), re.DOTALL
    )


_CONTENTS: Final = _any_of((*PROMPTS, *COMPLETIONS))
# The contents among the attributes of message events, which have no names of their own there.
_OF_MESSAGE_EVENTS: Final = frozenset({*PROMPTS_OF_EVENTS, *COMPLETIONS_OF_EVENTS})


def is_content(key: str, event_name: object = None) -> bool:
    """Whether the attribute of this key holds a prompt or a completion.

    Args:
        key: the key of the attribute.
        event_name: the name of the event or log record that has it, if it is one.
    """
    if _CONTENTS.fullmatch(key) is not None:
        return True
    return key in _OF_MESSAGE_EVENTS and reports_messages(event_name)


def reports_messages(event_name: object) -> bool:
    """Whether an event or a log record of this name reports messages: its body is one."""
    return isinstance(event_name, str) and event_name.startswith(MESSAGE_EVENTS)
