"""The costs of calls by `price_list`, computed plainly with fractions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

MIDNIGHT = datetime(2026, 3, 15, tzinfo=UTC)
DETAILS = ("read", "write", "write_1h", "audio", "image", "video", "reasoning", "spoken", "drawn")


def expected_cost(call: Mapping[str, Any]) -> tuple[Fraction, Fraction, Fraction]:
    """Of the prompt, of the completion, and in total.

    Args:
        call: family, start, tier, prompt, completion, and the counts of `DETAILS`.
    """
    ranges = prompt_ranges(call)
    prompt = sum((price_at(call, *one) for one in ranges), Fraction(0))
    output, reasoning, spoken, drawn = output_prices(call)
    said = call["completion"] - call["reasoning"] - call["spoken"] - call["drawn"]
    completion = said * output + call["reasoning"] * reasoning
    completion += call["spoken"] * spoken + call["drawn"] * drawn
    prompt, completion = prompt / 1_000_000, completion / 1_000_000
    fee = Fraction("0.0123") if call["family"] == "o3" else Fraction(0)
    return prompt, completion, prompt + completion + fee


def prompt_ranges(call: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """Where in the prompt the tokens of each kind are: the cached ones at its beginning."""
    ranges = []
    place = 0
    five_minutes = call["write"] - call["write_1h"]
    counts = {
        "read": call["read"],
        "write_1h": call["write_1h"],
        "write": five_minutes,
        "audio": call["audio"],
        "image": call["image"],
        "video": call["video"],
    }
    for kind, count in counts.items():
        ranges.append((kind, place, place + count))
        place += count
    ranges.append(("plain", place, call["prompt"]))
    return ranges


def price_at(call: Mapping[str, Any], kind: str, start: int, end: int) -> Fraction:
    match call["family"]:
        case "gpt-4o" if call["tier"] == "batch":
            return (end - start) * Fraction("1.25")
        case "gpt-4o" if call["start"] < MIDNIGHT:
            prices = {"read": "1.25", "audio": "40"}
            return (end - start) * Fraction(prices.get(kind, "2.5"))
        case "gpt-4o":
            prices = {"read": "0.333333333333333333333"}
            return (end - start) * Fraction(prices.get(kind, "2"))
        case "o3":
            return Fraction((end - start) * 10)
        case "claude-sonnet-4":
            prices = {"read": "0.3", "write": "3.75", "write_1h": "6", "plain": "3"}
            if call["prompt"] > 200_000:
                prices |= {"read": "0.6", "plain": "6"}
            if call["prompt"] > 500_000:
                prices |= {"plain": "7"}
            return (end - start) * Fraction(prices.get(kind, prices["plain"]))
        case "gemini-pro":
            bounds = [
                (0, 128_000, {"read": "0.31", "image": "2", "video": "3", "plain": "1.25"}),
                (128_000, 300_000, {"read": "0.625", "image": "2", "video": "3", "plain": "2.5"}),
                (300_000, 10**12, {"read": "0.625", "image": "9", "video": "3", "plain": "5"}),
            ]
            cost = Fraction(0)
            for lower, upper, prices in bounds:
                within = max(0, min(end, upper) - max(start, lower))
                cost += within * Fraction(prices.get(kind, prices["plain"]))
            return cost
        case _:
            return (end - start) * Fraction("0.07")


def output_prices(call: Mapping[str, Any]) -> tuple[Fraction, Fraction, Fraction, Fraction]:
    """Of plain output, of reasoning, of audio, and of images."""
    match call["family"]:
        case "gpt-4o" if call["tier"] == "batch":
            prices = ["5"] * 4
        case "gpt-4o" if call["start"] < MIDNIGHT:
            prices = ["10", "10", "80", "10"]
        case "gpt-4o":
            prices = ["8.004"] * 4
        case "o3":
            prices = ["40", "55.5", "40", "7"]
        case "claude-sonnet-4":
            prices = ["22.5" if call["prompt"] > 200_000 else "15"] * 4
        case "gemini-pro":
            prices = ["10"] * 4
        case _:
            prices = ["0"] * 4
    output, reasoning, spoken, drawn = map(Fraction, prices)
    return output, reasoning, spoken, drawn
