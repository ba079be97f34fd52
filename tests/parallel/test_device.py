"""Ranks whose arrays lie on devices, by a stand-in for NCCL that keeps its rules; nobody here has two GPUs."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from tests.cuda_on_cpu.device import DEVICE, standing_in
from tests.cuda_on_cpu.places import needs_compiler
from tests.parallel.test_communicator import SIZES, arrays_of, shares_of
from tinygrad_chat import GPT, ModelOptions
from tinygrad_chat.backend import Backend, Compute
from tinygrad_chat.backend.nccl import NcclGroup
from tinygrad_chat.errors import BackendError
from tinygrad_chat.models.parameter_table import parameter_roles
from tinygrad_chat.optim import SGD, AdamW, Muon, Optimizer, adamw_groups
from tinygrad_chat.optim.optimizer import Movable
from tinygrad_chat.parallel import FAREWELL, Communicator, ParameterShare, ThreadTeam, cut, device
from tinygrad_chat.parallel.device import DeviceCommunicator
from tinygrad_chat.training.distributed import DistributedStep, Rank
from tinygrad_chat.training.step import TrainStep

STREAM = 7
Call = tuple[Any, ...]


class StandIn:
    """cupy.cuda.nccl for threads of one process: what each rank asks for within a group is done when all have."""

    NCCL_FLOAT16, NCCL_FLOAT32, NCCL_FLOAT64, NCCL_SUM = 6, 7, 8, 0

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size)
        self.asked: list[list[Call]] = [[] for _ in range(size)]
        self.grouped = threading.local()

    def groupStart(self) -> None:  # noqa: N802 - NCCL's names
        assert not getattr(self.grouped, "calls", None)
        self.grouped.calls = []

    def groupEnd(self) -> None:  # noqa: N802
        calls, self.grouped.calls = self.grouped.calls, None
        for communicator, call in calls:
            communicator.do(call)

    def NcclCommunicator(self, size: int, identifier: Any, rank: int) -> Any:  # noqa: N802
        assert (size, identifier) == (self.barrier.parties, "who we are")
        return _Communicator(self, rank)


class _Communicator:
    def __init__(self, nccl: StandIn, rank: int) -> None:
        self.nccl, self.rank = nccl, rank

    def allReduce(self, *call: Any) -> None:  # noqa: N802
        self._ask(("all", *call))

    def reduce(self, source: int, target: int, count: int, kind: int, total: int, root: int, stream: int) -> None:
        self._ask(("reduce", source, target, count, kind, total, root, stream))

    def broadcast(self, source: int, target: int, count: int, kind: int, root: int, stream: int) -> None:
        self._ask(("broadcast", source, target, count, kind, None, root, stream))

    def _ask(self, call: Call) -> None:
        grouped = getattr(self.nccl.grouped, "calls", None)
        if grouped is None:
            self.do(call)
        else:
            grouped.append((self, call))

    def do(self, call: Call) -> None:
        """Meet the other ranks' calls, which must be alike, and do this one's part."""
        assert call[-1] == STREAM
        self.nccl.asked[self.rank] = [call]
        self.nccl.barrier.wait()
        calls = [asked[0] for asked in self.nccl.asked]
        assert len({(each[0], each[3], each[4], *each[5:]) for each in calls}) == 1, "ranks ask for different things"
        sources = [_memory(each[1], each[3], each[4]).copy() for each in calls]
        self.nccl.barrier.wait()
        kind, _, target, count, dtype, *rest = call
        if kind == "all" or (kind == "reduce" and rest[1] == self.rank):
            _memory(target, count, dtype)[...] = sum(sources[1:], start=sources[0])
        elif kind == "broadcast":
            _memory(target, count, dtype)[...] = sources[rest[1]]
        self.nccl.barrier.wait()


def _memory(pointer: int, count: int, kind: int) -> np.ndarray:
    element = {StandIn.NCCL_FLOAT32: ctypes.c_float, StandIn.NCCL_FLOAT64: ctypes.c_double}[kind]
    return np.ctypeslib.as_array((element * count).from_address(pointer))


def on_devices(size: int, work: Callable[[Communicator], Any]) -> list[Any]:
    """Let ranks, each with a device of its own, do some work."""
    nccl = StandIn(size)

    def with_device(host: Communicator) -> Any:
        gpus = NcclGroup(nccl, lambda: STREAM, size, "who we are", host.rank)
        return work(DeviceCommunicator(host, gpus))

    with standing_in():
        return ThreadTeam(size).run(with_device)


def to_device(array: np.ndarray) -> Any:
    return DEVICE.xp.asarray(array.copy())


@pytest.mark.parametrize("size", SIZES)
def test_reduce_scatter_on_devices_gives_each_rank_its_share_of_the_sum(size: int):
    arrays, shares = arrays_of(size), shares_of(size)

    def work(communicator: Communicator) -> np.ndarray:
        share = shares[communicator.rank]
        into = DEVICE.xp.zeros(share.stop - share.start, np.float32)
        communicator.reduce_scatter(to_device(arrays[communicator.rank]), shares, into)
        return DEVICE.to_host(into)

    total = np.stack(arrays).astype(np.float64).sum(axis=0)
    for share, received in zip(shares, on_devices(size, work), strict=True):
        np.testing.assert_allclose(received, total[share], rtol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_all_gather_broadcast_and_all_reduce_on_devices(size: int):
    arrays, shares = arrays_of(size), shares_of(size)

    def work(communicator: Communicator) -> Sequence[np.ndarray]:
        gathered, same, total = (to_device(arrays[communicator.rank]) for _ in range(3))
        communicator.all_gather(gathered, shares)
        communicator.broadcast(same)
        communicator.all_reduce(total)
        return [DEVICE.to_host(each) for each in (gathered, same, total)]

    expected = np.concatenate([array[share] for array, share in zip(arrays, shares, strict=True)])
    for gathered, same, total in on_devices(size, work):
        np.testing.assert_array_equal(gathered, expected)
        np.testing.assert_array_equal(same, arrays[0])
        np.testing.assert_allclose(total, np.sum(arrays, axis=0), rtol=1e-6)


def test_numbers_that_nccl_has_no_name_for_are_refused():
    with pytest.raises(BackendError, match=r"NCCL: expected an array of float32, .*received int64"):
        on_devices(1, lambda communicator: communicator.broadcast(to_device(np.arange(3))))


OPTIONS = ModelOptions(layers=1, heads=2, width=16, context=8)


def muon(parameters: Movable) -> Muon:
    names = {name for name, _ in parameters.masters()}
    roles = {name: role for name, role in parameter_roles(OPTIONS, 11).items() if name in names}
    groups = adamw_groups(roles, lr=0.02, embedding_lr=0.3, head_lr=0.008, scalar_lr=0.5)
    return Muon(parameters, groups, momentum=lambda position: 0.95, weight_decay=lambda position: 0.1)


def train(
    communicator: Communicator | None, optimizer: Callable[[Any], Optimizer], dtype: str, *, clip: float
) -> tuple[list[float], list[float], np.ndarray, np.ndarray]:
    """Take some steps, alone or as one of the ranks. Return the losses and norms that rank 0 has, the weights, and the
    latest gradient of this rank's share."""
    model = GPT(11, OPTIONS, random=np.random.default_rng(1), compute=Compute(DEVICE, "cuda", dtype))
    parameters, whole = model.parameters(), set[str]()
    if optimizer is muon:
        whole = {name for name, role in parameter_roles(OPTIONS, 11).items() if role == "matrix"}
    shares = cut(parameters, whole, 1 if communicator is None else communicator.size)
    share = parameters if communicator is None else ParameterShare(parameters, shares[communicator.rank])
    step, results = TrainStep(model, optimizer(share), lambda step: 0.01, clip=clip), []
    if communicator is not None:
        assert isinstance(share, ParameterShare)
        step = DistributedStep(Rank(step, shares, share, communicator), shares)
    if communicator is None or communicator.rank == 0:
        for number, batch in enumerate(np.random.default_rng(0).integers(11, size=(5, 4, 9))):
            results.append(step((batch[:, :-1], batch[:, 1:]), number))
        if communicator is not None:
            communicator.broadcast_object(FAREWELL)
    else:
        assert isinstance(step, DistributedStep)
        step.rank.follow()
    losses, norms = [float(result.loss) for result in results], [float(result.grad_norm) for result in results]
    return losses, norms, DEVICE.to_host(parameters.data).copy(), DEVICE.to_host(share.gradient).copy()


@pytest.mark.profile("ci")
@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_steps_of_two_devices_have_the_losses_of_one(dtype: str):
    with standing_in():
        alone = train(None, AdamW, dtype, clip=0.5)[0]
    found = on_devices(2, lambda communicator: train(communicator, AdamW, dtype, clip=0.5))[0][0]
    np.testing.assert_allclose(found, alone, rtol=1e-5 if dtype == "float32" else 1e-2)


@pytest.mark.profile("ci")
@needs_compiler
@pytest.mark.parametrize("optimizer", [AdamW, SGD, muon])
def test_ranks_on_devices_clip_within_the_update(optimizer: Callable[[Any], Optimizer]):
    clip = 0.02
    with standing_in():
        alone = train(None, optimizer, "float32", clip=clip)
    ranks = on_devices(2, lambda communicator: train(communicator, optimizer, "float32", clip=clip))
    _, norms, *_ = ranks[0]
    assert min(norms) > 2 * clip
    np.testing.assert_allclose(norms, alone[1], rtol=1e-4)
    gradient = np.concatenate([share for *_, share in ranks])
    np.testing.assert_allclose(np.linalg.norm(gradient), norms[-1], rtol=1e-6)  # nobody has scaled it where it lies
    for _, _, weights, _ in ranks:
        np.testing.assert_allclose(weights, alone[2], rtol=1e-3, atol=1e-4)


def test_arrays_go_by_nccl_where_they_lie_on_devices_and_nowhere_else(monkeypatch: pytest.MonkeyPatch):
    host = cast(Communicator, SimpleNamespace(rank=0, size=2, broadcast_object=lambda value=None: value))
    monkeypatch.setattr(device, "connect_gpus", lambda size, rank, share: (size, rank))
    on_host, on_gpu = (cast(Backend, SimpleNamespace(name=name)) for name in ("numpy", "cupy"))
    assert device.on_devices(host, on_host) is host
    assert isinstance(device.on_devices(host, on_gpu), DeviceCommunicator)
