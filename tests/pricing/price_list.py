"""The prices that the tests use, as a user writes them."""

from __future__ import annotations

from pathlib import Path

MIDNIGHT = "2026-03-15T00:00:00Z"
PRICES = """
prices:
  - provider: openai
    model: gpt-4o
    aliases: ["gpt-4o-2024-*"]
    valid_to: 2026-03-15
    usd_per_million_tokens:
      {input: 2.5, output: 10, cache_read: 1.25, input_audio: 40, output_audio: 80}
  - provider: openai
    model: gpt-4o
    aliases: ["gpt-4o-2024-*"]
    valid_from: 2026-03-15T00:00:00Z
    usd_per_million_tokens: {input: 2, output: 8.004, cache_read: "0.333333333333333333333"}
  - provider: openai
    model: gpt-4o
    aliases: ["gpt-4o-2024-*"]
    service_tier: batch
    usd_per_million_tokens: {input: 1.25, output: 5}
  - provider: openai
    model: o3
    usd_per_request: 0.0123
    usd_per_million_tokens: {input: 10, output: 40, reasoning: 55.5, output_image: 7}
  - provider: anthropic
    model: claude-sonnet-4
    aliases: [claude-sonnet-4-latest]
    usd_per_million_tokens:
      {input: 3, output: 15, cache_read: 0.3, cache_write: 3.75, cache_write_1h: 6}
    tiers:
      - above_input_tokens: 200000
        applies_to: call
        usd_per_million_tokens: {input: 6, output: 22.5, cache_read: 0.6}
      - above_input_tokens: 500000
        applies_to: call
        usd_per_million_tokens: {input: 7}
  - provider: google
    model: gemini-pro
    usd_per_million_tokens:
      {input: 1.25, output: 10, cache_read: 0.31, input_image: 2, input_video: 3}
    tiers:
      - above_input_tokens: 128000
        applies_to: excess
        usd_per_million_tokens: {input: 2.5, cache_read: 0.625}
      - above_input_tokens: 300000
        applies_to: excess
        usd_per_million_tokens: {input: 5, input_image: 9}
  - model: any-host
    aliases: [Any-Host-*]
    usd_per_million_tokens: {input: 0.07, output: 0}
"""


def price_file(folder: Path, text: str = PRICES, name: str = "prices.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path
