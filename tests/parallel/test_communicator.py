"""The collective operations, as threads and as processes have them, and shares of parameters."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_chat import GPT, ModelOptions
from tinygrad_chat.errors import ShapeError
from tinygrad_chat.models.parameter_table import parameter_roles
from tinygrad_chat.optim import AdamW, Muon, Optimizer, adamw_groups
from tinygrad_chat.optim.schedule import cosine_decay, muon_momentum
from tinygrad_chat.parallel import Communicator, ParameterShare, ThreadTeam, cut, part_of_state, whole_state
from tinygrad_chat.parallel.buckets import GradientBuckets
from tinygrad_chat.parallel.sharding import cost_of_muon

SIZES = (1, 2, 3, 5)
ELEMENTS = 11


def arrays_of(size: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [(10.0**rank * random.normal(size=ELEMENTS)).astype(np.float32) for rank in range(size)]


def shares_of(size: int) -> list[slice]:
    """Shares of unequal length, of which the first is empty where there are several."""
    cuts = [0, *sorted(np.random.default_rng(size).integers(0, ELEMENTS, size - 1)), ELEMENTS]
    cuts[1 if size > 1 else 0] = 0
    return [slice(int(start), int(stop)) for start, stop in itertools.pairwise(cuts)]


@pytest.mark.parametrize("size", SIZES)
def test_reduce_scatter_gives_each_rank_its_share_of_the_sum_in_the_order_of_ranks(size: int):
    arrays, shares = arrays_of(size), shares_of(size)
    total = functools.reduce(np.add, [array.copy() for array in arrays])

    def work(communicator: Communicator) -> np.ndarray:
        share = shares[communicator.rank]
        into = np.full(share.stop - share.start, np.nan, np.float32)
        communicator.reduce_scatter(arrays[communicator.rank], shares, into)
        return into

    for share, received in zip(shares, ThreadTeam(size).run(work), strict=True):
        np.testing.assert_array_equal(received, total[share])


@pytest.mark.parametrize("size", SIZES)
def test_all_gather_gives_every_rank_all_shares(size: int):
    arrays, shares = arrays_of(size), shares_of(size)
    expected = np.concatenate([array[share] for array, share in zip(arrays, shares, strict=True)])
    ThreadTeam(size).run(lambda c: c.all_gather(arrays[c.rank], shares))
    for array in arrays:
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("size", SIZES)
def test_broadcast_gives_every_rank_what_rank_0_has(size: int):
    arrays = [np.full((2, 3), rank) for rank in range(size)]
    ThreadTeam(size).run(lambda c: c.broadcast(arrays[c.rank]))
    np.testing.assert_array_equal(arrays, np.zeros((size, 2, 3)))


@pytest.mark.parametrize("size", SIZES)
def test_objects_go_from_rank_0_to_all_and_from_all_to_rank_0(size: int):
    def work(communicator: Communicator) -> Any:
        first, rank = communicator.rank == 0, communicator.rank
        return (
            communicator.broadcast_object("all" if first else None),
            communicator.scatter_objects([f"for {each}" for each in range(size)] if first else None),
            communicator.gather_objects(f"from {rank}"),
            communicator.all_gather_objects(rank),
        )

    of_all = [f"from {each}" for each in range(size)]
    for rank, received in enumerate(ThreadTeam(size).run(work)):
        assert received == ("all", f"for {rank}", None if rank else of_all, list(range(size)))


@pytest.mark.parametrize(
    "call",
    [
        lambda c, array: c.all_reduce(array),
        lambda c, array: c.reduce_scatter(array, [slice(0, 4), slice(4, 8)], np.empty(4)),
        lambda c, array: c.all_gather(array, [slice(0, 4), slice(4, 8)]),
        lambda c, array: c.broadcast(array),
    ],
)
def test_an_array_in_pieces_is_refused(call: Callable[[Communicator, np.ndarray], None]):
    with pytest.raises(ShapeError, match="in one piece"):
        ThreadTeam(2).run(lambda c: call(c, np.zeros((8, 2))[:, 0]))


def model(layers: int = 2) -> GPT:
    options = ModelOptions(layers=layers, heads=2, width=8, context=4)
    return GPT(13, options, random=np.random.default_rng(0))


def matrices(of: GPT) -> set[str]:
    return {name for name, role in parameter_roles(of.options, of.vocabulary).items() if role == "matrix"}


@given(size=st.integers(1, 9), whole=st.booleans(), layers=st.integers(1, 3))
def test_shares_cover_the_parameters_in_order_and_cut_no_whole_matrix(size: int, whole: bool, layers: int):
    of = model(layers)
    parameters, kept = of.parameters(), matrices(of) if whole else set[str]()
    shares = cut(parameters, kept, size)
    assert len(shares) == size
    assert [share.start for share in shares] == [0, *[share.stop for share in shares[:-1]]]
    assert shares[-1].stop == parameters.size
    for name, span in parameters.spans():
        if name in kept:
            assert any(share.start <= span.start and span.stop <= share.stop for share in shares), name


@pytest.mark.parametrize("size", [2, 3, 4])
def test_shares_of_numbers_are_equal_to_a_number(size: int):
    shares = cut(model().parameters(), set(), size)
    lengths = [share.stop - share.start for share in shares]
    assert max(lengths) - min(lengths) <= 1


def test_shares_are_as_equal_in_work_as_whole_matrices_allow():
    of = model(layers=6)
    parameters, whole = of.parameters(), matrices(of)
    costs = {name: cost_of_muon(*parameters[name].shape) for name in whole}
    for size in (2, 3, 4):
        work = [
            sum(
                costs[name]
                for name, span in parameters.spans()
                if name in whole and share.start <= span.start < share.stop
            )
            for share in cut(parameters, whole, size)
        ]
        assert max(work) - sum(work) / size <= max(costs.values())


def optimizer_of(kind: str, of: GPT, parameters: Any) -> Optimizer:
    if kind == "adamw":
        return AdamW(parameters)
    roles = parameter_roles(of.options, of.vocabulary)
    named = {name: roles[name] for name, _ in parameters.masters()}
    groups = adamw_groups(named, lr=0.02, embedding_lr=0.3, head_lr=0.008, scalar_lr=0.5)
    momentum, decay = muon_momentum(steps=10, warmdown=0.5), cosine_decay(peak=0.1, steps=10)
    return Muon(parameters, groups, momentum=momentum, weight_decay=decay)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_optimisers_of_shares_do_together_what_one_does_and_remember_the_same(kind: str, size: int):
    alone, shared = model(), model()
    whole = matrices(shared) if kind == "muon" else set[str]()
    spans = cut(shared.parameters(), whole, size)
    shares = [ParameterShare(shared.parameters(), span) for span in spans]
    one = optimizer_of(kind, alone, alone.parameters())
    several = [optimizer_of(kind, shared, share) for share in shares]
    random = np.random.default_rng(1)
    for step in range(3):
        if step == 2:  # from the same memory, handed over
            state = one.state()
            several = [optimizer_of(kind, shared, share) for share in shares]
            for optimizer, span in zip(several, spans, strict=True):
                optimizer.load(part_of_state(shared.parameters(), state, span))
        gradient = random.normal(size=alone.parameters().size).astype(np.float32)
        alone.parameters().gradient[...] = gradient
        one.step(0.01, step)
        for share, span, optimizer in zip(shares, spans, several, strict=True):
            share.gradient[...] = gradient[span]
            optimizer.step(0.01, step)
        np.testing.assert_array_equal(shared.parameters().data, alone.parameters().data)
        merged, expected = whole_state(shared.parameters(), [each.state() for each in several]), one.state()
        assert merged.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(merged[name], array, err_msg=name)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@given(data=st.data())
def test_what_an_optimiser_remembers_is_cut_where_it_may_be_and_put_together_again(kind: str, data: st.DataObject):
    of = model()
    parameters = of.parameters()
    optimizer = optimizer_of(kind, of, parameters)
    parameters.gradient[...] = np.random.default_rng(1).normal(size=parameters.size)
    optimizer.step(0.01, 0)
    state = optimizer.state()
    whole = matrices(of) if kind == "muon" else set[str]()
    within = {place for name, span in parameters.spans() if name in whole for place in range(span.start + 1, span.stop)}
    places = sorted(set(range(parameters.size + 1)) - within)
    cuts = sorted(data.draw(st.lists(st.sampled_from(places), max_size=4)))
    shares = [slice(*ends) for ends in itertools.pairwise([0, *cuts, parameters.size])]
    merged = whole_state(parameters, [part_of_state(parameters, state, share) for share in shares])
    assert merged.keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(merged[name], array, err_msg=name)


def test_a_share_of_ranks_remembers_its_share_and_no_more():
    of = model()
    shares = [ParameterShare(of.parameters(), span) for span in cut(of.parameters(), set(), 4)]
    remembered = [sum(array.size for array in AdamW(share).state().values()) for share in shares]
    assert max(remembered) <= 2 * -(-of.parameters().size // 4) + 1


@pytest.mark.parametrize("bucket", [1, 100, 10**6])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_buckets_sum_what_one_reduce_scatter_sums(size: int, bucket: int):
    tokens = np.random.default_rng(2).integers(13, size=(2 * size, 5))

    def work(communicator: Communicator) -> list[tuple[np.ndarray, np.ndarray]]:
        of = model()
        parameters = of.parameters()
        shares = cut(parameters, matrices(of), size)
        own, received = shares[communicator.rank], []
        into = np.empty(own.stop - own.start, np.float32)
        buckets = GradientBuckets(parameters, shares, communicator, into, bucket)
        rows = tokens[2 * communicator.rank :][:2]
        for _ in range(3):  # the first one learns how many gradients come
            parameters.zero_gradient()
            of.loss(rows[:, :-1], rows[:, 1:]).backward(deliver=buckets.deliver)
            whole = parameters.gradient.copy()
            buckets.finish()
            communicator.all_reduce(whole)
            received.append((into.copy(), whole[own]))
        return received

    for rank in ThreadTeam(size).run(work):
        for bucketed, whole in rank:
            np.testing.assert_allclose(bucketed, whole, rtol=1e-5, atol=1e-8)


def test_buckets_go_off_during_the_sweep_once_they_know_when_they_are_complete():
    of, sent, ended = model(), [], []

    class Recording:
        rank, size = 0, 1

        def start_reduce_scatter(self, array: Any, shares: Any, into: Any) -> Callable[[], None]:
            sent.append(finishing)
            return lambda: ended.append(finishing)

    parameters = of.parameters()
    span = slice(0, parameters.size)
    buckets = GradientBuckets(parameters, [span], cast(Communicator, Recording()), np.empty(parameters.size), 1)
    tokens, during = np.zeros((1, 5), int), []
    for _ in range(2):
        sent.clear()
        ended.clear()
        finishing = False
        of.loss(tokens[:, :-1], tokens[:, 1:]).backward(deliver=buckets.deliver)
        finishing = True
        buckets.finish()
        during.append(sent.count(False))
        assert len(sent) == len(parameters)
        assert ended == [True] * len(parameters)  # all have been waited for
    assert during == [0, len(parameters)]


def test_a_sweep_that_delivers_otherwise_than_the_first_is_no_sum():
    of = model()
    parameters = of.parameters()
    alone = ThreadTeam(1)

    def work(communicator: Communicator) -> None:
        whole = slice(0, parameters.size)
        buckets = GradientBuckets(parameters, [whole], communicator, np.empty(parameters.size, np.float32), 1)
        tokens = np.zeros((1, 5), int)
        of.loss(tokens[:, :-1], tokens[:, 1:]).backward(deliver=buckets.deliver)
        buckets.finish()
        with pytest.raises(RuntimeError, match="buckets: expected"):
            buckets.finish()

    alone.run(work)
