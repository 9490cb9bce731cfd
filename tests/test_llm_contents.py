"""Which attributes hold prompts and completions: a rule of the configuration may drop them."""

from __future__ import annotations

import pytest

from observatory_storage.llm.content_names import COMPLETIONS, PROMPTS
from observatory_storage.llm.contents import is_content


@pytest.mark.parametrize("name", [*PROMPTS, *COMPLETIONS])
def test_every_name_that_is_searched_is_content(name: str) -> None:
    assert is_content(name.replace("*", "12"))
    if name.endswith("*"):
        assert is_content(f"{name[:-1]}0.message.content")
    assert not is_content(f"{name.replace('.*', '')}_name")


@pytest.mark.parametrize(
    "name",
    [
        *("gen_ai.prompt.name", "langfuse.observation.prompt.name", "gen_ai.request.model"),
        *("llm.prompt_template.version", "gen_ai.usage.input_tokens", "prompt", "content"),
    ],
)
def test_facts_are_no_content(name: str) -> None:
    assert not is_content(name)


def test_attributes_of_message_events_are_content_there_alone() -> None:
    assert is_content("content", "gen_ai.user.message")
    assert is_content("prompt", "claude_code.user_prompt")
    assert not is_content("prompt", "checkout.finished")
