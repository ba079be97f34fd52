"""Random streams: repeatable, and independent of each other."""

from __future__ import annotations

import itertools

from tinygrad_chat.seeds import PURPOSES, rng


def test_a_stream_is_a_function_of_seed_purpose_and_position():
    assert rng(3, "batches", 7).random(5).tolist() == rng(3, "batches", 7).random(5).tolist()


def test_other_seeds_purposes_and_positions_give_other_numbers():
    keys = itertools.product((0, 1, 2**40), PURPOSES, (0, 1, 10_000))
    first_numbers = [rng(*key).random() for key in keys]
    assert len(set(first_numbers)) == len(first_numbers)
