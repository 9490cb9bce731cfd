"""Words and their ordinals are read as they were written, whatever their number and size."""

from __future__ import annotations

import random

import pytest

from observatory_storage.payloads.word_blocks import (
    blocks_of,
    count_of,
    encoded,
    joined,
    ordinals_of,
    read_block,
)


def _some(chance: random.Random, below: int) -> list[int]:
    return sorted(chance.sample(range(below), chance.randrange(1, min(below, 300) + 1)))


@pytest.mark.parametrize("below", [1, 127, 128, 300, 16_385, 3_000_000])
def test_ordinals_of_segments_are_joined(below: int) -> None:
    chance = random.Random(below)
    for _ in range(30):
        parts = [_some(chance, below) for _ in range(chance.randrange(1, 5))]
        data = joined((number * below, encoded(part)) for number, part in enumerate(parts))
        expected = [number * below + each for number, part in enumerate(parts) for each in part]
        assert ordinals_of(data) == expected
        assert data == encoded(expected)
        assert count_of(data) == len(expected)


def test_a_part_of_the_words_is_read() -> None:
    chance = random.Random(1)
    words = sorted({f"w{chance.randrange(10**6)}é" for _ in range(5_000)})
    given = {word: _some(chance, 1_000) if chance.random() < 0.1 else [] for word in words}
    stored = [(word.encode(), encoded(found) if found else b"") for word, found in given.items()]
    blocks = list(blocks_of(stored))
    assert len(blocks) > 2
    assert {w: found for block in blocks for w, found in read_block(block.data)} == given
    for block in blocks:
        own = [word for word, _ in read_block(block.data)]
        first, last = own[3], own[7]
        assert block.first_word == own[0]
        assert dict(read_block(block.data, first, last)) == {w: given[w] for w in own[3:8]}
        assert not list(read_block(block.data, first + "\0", own[4][:-1]))
