"""The ranks of one engine, started together and stopped between turns, so that those that wait do not keep a core busy.

python -m bench.rank_worker lead ENGINE REQUEST    starts the ranks and passes on what it is asked
python -m bench.rank_worker rank ENGINE REQUEST    is one of them; the first answers
"""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil

from bench.turns import serve
from bench.worker import peak_mib

Answer = Callable[[int], dict[str, Any]]
PORT_FREE_FOR = "127.0.0.1"


def lead(engine: str, request: str) -> None:
    """Start the ranks, and let them run only while they are asked something."""
    command = [sys.executable, "-m", "bench.rank_worker", "rank", engine, request]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    if engine.startswith("torch"):
        with socket.create_server((PORT_FREE_FOR, 0)) as free:
            port = str(free.getsockname()[1])
        place = {"MASTER_ADDR": PORT_FREE_FOR, "MASTER_PORT": port, "WORLD_SIZE": "2"}
        environments = [{**one_thread, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
        processes = [subprocess.Popen(command, env=environments[0], **pipes)]
        processes.append(subprocess.Popen(command, env=environments[1], stdin=subprocess.DEVNULL, text=True))
    elif ranks_of(engine) == 1:
        threads = {} if "thread" in engine and engine.startswith("2") else one_thread
        processes = [subprocess.Popen(command, env={**os.environ, **threads}, **pipes)]
    else:
        from tinygrad_chat.parallel.starting import ranks_command

        processes = [subprocess.Popen([*ranks_command(ranks_of(engine)), *command], env=one_thread, **pipes)]
    to_first, from_first = processes[0].stdin, processes[0].stdout
    assert to_first
    assert from_first

    def answer(asked: int) -> Any:
        _signal_all(processes, signal.SIGCONT)
        print(json.dumps(asked), file=to_first, flush=True)
        line = from_first.readline()
        _signal_all(processes, signal.SIGSTOP)
        return json.loads(line)

    try:
        serve(answer)
    finally:
        for process in _descendants(processes):
            process.kill()


def ranks_of(engine: str) -> int:
    """Return how many processes of ours an engine is.

    >>> [ranks_of(engine) for engine in ("2 threads", "2 ranks", "4 of a thread", "exchange bare MPI")]
    [1, 2, 4, 2]
    """
    if engine == "2 threads":
        return 1
    return int(engine[0]) if engine[0].isdigit() else 2


def _descendants(processes: list[subprocess.Popen[str]]) -> list[psutil.Process]:
    found = []
    for process in processes:
        top = psutil.Process(process.pid)
        found += [*top.children(recursive=True), top]
    return found


def _signal_all(processes: list[subprocess.Popen[str]], number: int) -> None:
    for process in _descendants(processes):
        process.send_signal(number)


def rank(engine: str, request_text: str) -> None:
    """Be one rank; the first serves."""
    request = json.loads(request_text)
    if engine.startswith("exchange"):
        _exchange(bare="bare" in engine)
    elif engine.startswith("torch"):
        _torch(request)
    else:
        _ours(request, overlaps="during the sweep" in engine)


def _ours(request: Mapping[str, Any], *, overlaps: bool) -> None:
    from tinygrad_chat.config.record import from_saved
    from tinygrad_chat.machine.memory import peak_memory
    from tinygrad_chat.parallel import FAREWELL
    from tinygrad_chat.parallel.mpi import MpiCommunicator, open_mpi
    from tinygrad_chat.training.distributed import DistributedStep, follow
    from tinygrad_chat.training.distributed import lead as lead_ranks

    communicator = MpiCommunicator(open_mpi()) if ranks_started() else None
    if communicator is not None:
        communicator.overlaps = overlaps
    if communicator is not None and communicator.rank:
        follow(communicator)
        return
    config = from_saved(request["config"], source="the request")
    weights = None if request["weights"] is None else dict(np.load(request["weights"]))
    step = lead_ranks(config, request["vocabulary"], None, weights, communicator)
    optimizer = step.optimizer
    optimizer_seconds: list[float] = []
    if communicator is None:
        _time_optimizer(optimizer, optimizer_seconds)

    def take(tokens: np.ndarray, targets: np.ndarray, number: int) -> float:
        return float(step((tokens, targets), number).loss)

    def told() -> dict[str, Any]:
        peaks = step.rank.ask("peak_memory") if isinstance(step, DistributedStep) else [peak_memory()]
        return {
            "communication": None if communicator is None else communicator.seconds,
            "parameters": step.model.parameters().size,
            "rank_mib": [peak / 2**20 for peak in peaks],
            "optimizer_mib": sum(array.nbytes for array in optimizer.state().values()) / 2**20,
            "optimizer_seconds": statistics.median(optimizer_seconds) if optimizer_seconds else None,
        }

    shape = config.data.batch_size, config.model.context + 1
    serve(_steps(take, shape, request["vocabulary"], told))
    if communicator is not None:
        communicator.broadcast_object(FAREWELL)


def ranks_started() -> bool:
    """Return whether mpiexec has started this process."""
    from tinygrad_chat.parallel.joining import started_ranks

    return started_ranks() > 1


def _time_optimizer(optimizer: Any, seconds: list[float]) -> None:
    update = optimizer.update

    def timed(*arguments: Any) -> None:
        began = time.perf_counter()
        update(*arguments)
        seconds.append(time.perf_counter() - began)

    optimizer.update = timed


def _torch(request: Mapping[str, Any]) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    weights = dict(np.load(request["their_weights"]))
    step, shape = _torch_step(request, weights)
    rank, size = dist.get_rank(), dist.get_world_size()

    def take(tokens: np.ndarray, targets: np.ndarray, number: int) -> float:
        rows = len(tokens) // size
        own = slice(rank * rows, (rank + 1) * rows)
        return float(step(tokens[own].copy(), targets[own].copy(), number))

    def mean_losses(answer: dict[str, Any]) -> dict[str, Any]:
        losses = torch.tensor(answer["losses"], dtype=torch.float64)
        dist.all_reduce(losses)
        memory: list[Any] = [None] * size
        dist.all_gather_object(memory, peak_mib())
        return {**answer, "losses": (losses / size).tolist(), "rank_mib": memory}

    steps = _steps(take, shape, request["vocabulary"], lambda: {"communication": None})

    def all_ranks(asked: int) -> dict[str, Any]:
        asked_of_all = torch.tensor([asked])
        dist.broadcast(asked_of_all, 0)
        return mean_losses(steps(int(asked_of_all)))

    if rank == 0:
        serve(all_ranks)
        return
    while True:
        all_ranks(0)


def _torch_step(request: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> tuple[Callable[..., Any], Any]:
    """Return a step of this rank's rows, and the shape of a batch's windows."""
    import torch

    from tinygrad_chat.config.record import from_saved

    config = from_saved(request["config"], source="the request")
    shape = config.data.batch_size, config.model.context + 1
    if request["checkout"]:
        from bench.peers import nanochat
        from tinygrad_chat.interchange.nanochat import nanochat_config

        upstream = nanochat_config(config.model, request["vocabulary"])
        model = nanochat.build(request["checkout"], upstream, seed=1, weights=weights, dtype="float32", compiled=False)
        shared = torch.nn.parallel.DistributedDataParallel(model)
        shared.setup_optimizer, shared.get_device = model.setup_optimizer, model.get_device
        # Its optimiser would share its memory over ranks by futures that gloo does not have.
        nanochat.upstream_module("nanochat.optim", request["checkout"]).dist = SimpleNamespace(is_available=bool)
        return nanochat.training_step(request["checkout"], shared, config), shape
    from bench.configurations import CLIP, CONFIGURATIONS
    from bench.peers.torch_gpt import TorchGPT

    model = TorchGPT(CONFIGURATIONS[request["name"]], weights)
    optimizer, shared = model.optimizer(), torch.nn.parallel.DistributedDataParallel(model)

    def step(tokens: np.ndarray, targets: np.ndarray, number: int) -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = shared(torch.from_numpy(tokens), torch.from_numpy(targets))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return loss.detach()

    return step, shape


def _steps(
    take: Callable[[np.ndarray, np.ndarray, int], float],
    shape: tuple[int, int],
    vocabulary: int,
    told: Callable[[], dict[str, Any]],
) -> Answer:
    """Return what takes so many steps, on random windows that are the same in every process."""
    number, communicated = 0, 0.0

    def answer(steps: int) -> dict[str, Any]:
        nonlocal number, communicated
        losses, seconds = [], []
        for _ in range(steps):
            windows = np.random.default_rng(number).integers(vocabulary, size=shape)
            began = time.perf_counter()
            losses.append(take(windows[:, :-1], windows[:, 1:], number))
            seconds.append(time.perf_counter() - began)
            number += 1
        found = told()
        if found["communication"] is not None:
            found["communication"], communicated = found["communication"] - communicated, found["communication"]
        return {"losses": losses, "seconds": seconds, **found}

    return answer


def _exchange(*, bare: bool) -> None:
    """Exchange a gradient when asked, and answer with the seconds."""
    from tinygrad_chat.parallel.bandwidth import ELEMENTS, REPETITIONS, seconds_of_exchange
    from tinygrad_chat.parallel.mpi import MpiCommunicator, open_mpi

    mpi = open_mpi()
    if bare:
        mpi.Init()
        world, half = mpi.COMM_WORLD, ELEMENTS // 2
        array, into = np.ones(ELEMENTS, np.float32), np.empty(half, np.float32)

        def exchange() -> float:
            taken = []
            for _ in range(REPETITIONS):
                world.Barrier()
                began = time.perf_counter()
                world.Reduce_scatter(array, into, [half, half])
                world.Allgatherv(mpi.IN_PLACE, [array, [half, half]])
                taken.append(time.perf_counter() - began)
            return statistics.median(taken)

        rank, barrier = world.Get_rank(), world.Barrier
    else:
        communicator = MpiCommunicator(mpi)

        def exchange() -> float:
            return seconds_of_exchange(communicator)

        rank, barrier = communicator.rank, communicator.barrier

    def answer(_: int) -> dict[str, Any]:
        barrier()
        return {"exchange": exchange()}

    if rank == 0:
        serve(answer)
        return
    while True:
        answer(0)


if __name__ == "__main__":
    {"lead": lead, "rank": rank}[sys.argv[1]](*sys.argv[2:])
