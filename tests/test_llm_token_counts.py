"""Token counts include cached and reasoning tokens, once, however they are reported."""

from __future__ import annotations

import json
from typing import Any

import pytest

from observatory_storage.llm import facts, facts_by_column

CACHED = "gen_ai.usage.cache_read.input_tokens"
WRITTEN = "gen_ai.usage.cache_creation.input_tokens"
REASONING = "gen_ai.usage.reasoning.output_tokens"


def counts(attributes: dict[str, Any]) -> tuple[Any, ...]:
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    found = facts(attributes, name="x", scope_name=None, resource_attributes={})
    alone = tuple(found.get(name) for name in names)
    columns = facts_by_column(
        [attributes] * 2,
        names=["x"] * 2,
        scope_names=[None] * 2,
        resource_attributes=[{}] * 2,
    )
    assert tuple(columns.get(name, [None])[0] for name in names) == alone
    return alone


def usage(prompt: int | None, completion: int | None, total: int | None = None) -> dict[str, Any]:
    given = {
        "gen_ai.usage.input_tokens": prompt,
        "gen_ai.usage.output_tokens": completion,
        "gen_ai.usage.total_tokens": total,
    }
    return {key: count for key, count in given.items() if count is not None}


@pytest.mark.parametrize(
    ("attributes", "wanted"),
    [
        # OpenTelemetry's counts include what is cached and what is thought.
        (usage(2401, 17) | {CACHED: 2000, WRITTEN: 300}, (2401, 17, 2418)),
        (usage(2401, 17, 2418) | {CACHED: 2000, WRITTEN: 300}, (2401, 17, 2418)),
        (usage(100, 40) | {REASONING: 40}, (100, 40, 140)),
        # A total tells what the sides leave out.
        (usage(101, 17, 2418) | {CACHED: 2000, WRITTEN: 300}, (2401, 17, 2418)),
        (usage(2101, 17, 2418) | {CACHED: 2000, WRITTEN: 300}, (2401, 17, 2418)),
        (usage(400, 17, 2417) | {CACHED: 2000, WRITTEN: 300}, (2400, 17, 2417)),
        (usage(100, 9, 117) | {REASONING: 8}, (100, 17, 117)),
        (usage(37, 9, 118) | {CACHED: 64, REASONING: 8}, (101, 17, 118)),
        (usage(100, 9, 999) | {CACHED: 64, REASONING: 8}, (100, 9, 999)),
        # A part cannot be more than the whole.
        (usage(101, 17) | {CACHED: 2000, WRITTEN: 300}, (2401, 17, 2418)),
        (usage(101, 17, 118) | {CACHED: 2000}, (2101, 17, 2118)),
        (usage(10, 5) | {REASONING: 30}, (10, 35, 45)),
        (usage(None, 5) | {CACHED: 2000}, (None, 5, 5)),
        (usage(10, None) | {REASONING: 30}, (10, None, 10)),
        ({CACHED: 2000}, (None, None, None)),
        (usage(0, 0) | {CACHED: 0}, (0, 0, 0)),
    ],
)
def test_counts_include_their_details_once(
    attributes: dict[str, Any], wanted: tuple[Any, ...]
) -> None:
    assert counts(attributes) == wanted


@pytest.mark.parametrize(
    ("provider", "more", "prompt"),
    [
        ("anthropic.messages", {}, 164),
        ("amazon-bedrock", {}, 164),
        ("openai.chat", {}, 100),
        ("anthropic.messages", {"ai.usage.inputTokenDetails.noCacheTokens": 36}, 100),
    ],
)
def test_the_vercel_ai_sdk_included_cached_tokens_of_anthropic_only_since_version_6(
    provider: str, more: dict[str, Any], prompt: int
) -> None:
    attributes = {
        "ai.model.provider": provider,
        "ai.usage.inputTokens": 100,
        "ai.usage.outputTokens": 5,
        "ai.usage.cachedInputTokens": 64,
    }
    assert counts(attributes | more) == (prompt, 5, prompt + 5)


@pytest.mark.parametrize(
    ("details", "wanted"),
    [
        ({"input": 60, "output": 15, "total": 75, "input_cached_tokens": 0}, (60, 15, 75)),
        # Langfuse's own keys count each token once.
        (
            {"input": 37, "output": 9, "input_cached_tokens": 64, "output_reasoning": 8},
            (101, 17, 118),
        ),
        ({"input": 37, "output": 17, "input_cache_read": 64, "total": 118}, (101, 17, 118)),
        ({"input": 20, "input_audio": 5, "output": 3}, (25, 3, 28)),
        # Others report inclusive counts under the same keys, which the total tells.
        ({"input": 101, "output": 17, "input_cache_read": 64, "total": 118}, (101, 17, 118)),
        # The forms of OpenAI's APIs are inclusive.
        (
            {
                "prompt_tokens": 101,
                "completion_tokens": 17,
                "total_tokens": 118,
                "prompt_tokens_details": {"cached_tokens": 64},
            },
            (101, 17, 118),
        ),
        (
            {
                "input_tokens": 101,
                "output_tokens": 17,
                "input_tokens_details": {"cached_tokens": 64},
            },
            (101, 17, 118),
        ),
        # That of Anthropic's is not.
        (
            {"input_tokens": 101, "output_tokens": 17, "cache_read_input_tokens": 64},
            (165, 17, 182),
        ),
        ({"input": "many", "output": 5}, (None, 5, 5)),
        ({"input": -1}, (None, None, None)),
    ],
)
def test_usage_of_langfuse_is_told_by_its_keys_and_its_total(
    details: dict[str, Any], wanted: tuple[Any, ...]
) -> None:
    for given in (details, json.dumps(details)):
        assert counts({"langfuse.observation.usage_details": given}) == wanted


@pytest.mark.parametrize(
    "text", ["{", "[1]", "null", "5", "", '{"input": {"a": 1}}', "[" * 9999, 7]
)
def test_malformed_json_is_absent(text: object) -> None:
    attributes = {"langfuse.observation.usage_details": text, "gen_ai.request.model": "m"}
    found = facts(attributes, name="x", scope_name=None, resource_attributes={})
    assert found == {"model": "m"}


def test_json_that_is_too_long_for_facts_is_not_read() -> None:
    details = {"input": 5, "padding": "x" * 65_536}
    assert counts({"langfuse.observation.usage_details": json.dumps(details)}) == (None,) * 3
