"""The model of a step's time with more ranks."""

from __future__ import annotations

import pytest

from tinygrad_chat.planning.ranks import StepModel

MODEL = StepModel(gradient=0.9, optimizer=0.1, bytes=4_000_000, bandwidth=1e9, latency=1e-5)


def test_one_rank_computes_and_has_nobody_to_talk_to():
    assert MODEL.seconds(1) == 1.0


def test_two_ranks_exchange_half_of_the_gradient_each_way_and_n_all_but_their_share():
    bytes_alone = [MODEL.communication(ranks) - 2e-5 * messages for ranks, messages in ((2, 1), (4, 2), (1024, 10))]
    assert bytes_alone == pytest.approx([4e-3, 6e-3, 8e-3 * 1023 / 1024])


def test_ranks_that_share_a_core_take_turns():
    assert MODEL.seconds(4, ranks_a_core=2) - MODEL.communication(4) == pytest.approx(0.5)


def test_with_enough_ranks_the_exchange_is_what_is_left():
    assert MODEL.seconds(10**6) == pytest.approx(8e-3, rel=0.06)
