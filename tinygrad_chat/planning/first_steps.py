"""Time the beginning of a run: `python -m tinygrad_chat.planning.first_steps REQUEST`; request and answer are JSON.

The real training loop takes the steps and writes the checkpoints, into a temporary folder. So the times and the memory
measured are those of a run.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_chat.config.groups import UNBOUNDED
from tinygrad_chat.config.record import from_saved
from tinygrad_chat.errors import TinygradChatError
from tinygrad_chat.formatting import as_json
from tinygrad_chat.inference.generation import generate
from tinygrad_chat.machine.environment import describe_environment
from tinygrad_chat.machine.memory import peak_memory
from tinygrad_chat.parallel.joining import joined_ranks
from tinygrad_chat.seeds import rng
from tinygrad_chat.training.distributed import follow
from tinygrad_chat.training.evaluation import evaluate
from tinygrad_chat.training.events import Saved, Stepped
from tinygrad_chat.training.loop import EVALUATION_BATCH, SAMPLE_LENGTH, train
from tinygrad_chat.training.run import Run, start_run

SAMPLING_SECONDS = 0.3  # after which sampling stops
REPEATED = 1.0  # seconds; a faster evaluation is run again, warm


def main(request_text: str) -> None:
    """Answer a request, alone or as one of several ranks, of which rank 0 answers."""
    request = json.loads(request_text)
    config = from_saved(request["settings"], source="the request")
    with joined_ranks((request_text,)) as ranks:
        if ranks is not None and ranks.communicator.rank:
            follow(ranks.communicator)
            return
        try:
            with tempfile.TemporaryDirectory() as folder:
                path, communicator = Path(folder) / "run", ranks and ranks.communicator
                run = start_run(config, path, confirmed=request["confirmed"], communicator=communicator)
                answer = _measure(run, request["seconds"])
        except TinygradChatError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        except MemoryError:
            answer = {"error": "MemoryError"}
        print(as_json(answer), flush=True)


def _measure(run: Run, seconds: float) -> dict[str, Any]:
    """Return the fields of a Measurement, except for the startup time."""
    compute, dataset = run.model.parameters().compute, run.dataset
    run.config = run.config.replace(
        steps=UNBOUNDED, minutes=None, eval_every=UNBOUNDED, checkpoint_every=None, on_nan="stop"
    )
    run.progress.step, run.resumed = 1, True  # at step 0 the loop would evaluate first
    built = _held(run)
    first = _take_steps(run, 0.0)
    held_out = run.evaluation_tokens
    validation = dataset.parts[0].validation[: len(held_out[0])]
    _compile_kernels(run, validation)
    evaluation, sample = _seconds_of_evaluation(run, validation), _seconds_of_sampling(run)
    steps = _take_steps(run, seconds)
    environment = describe_environment(compute)
    del environment["arguments"]
    return {
        "ranks": run.train_step.ranks,
        "parameters": run.model.parameters().size,
        "vocabulary": run.tokenizer.size,
        "validation_tokens": sum(map(len, held_out)),
        "document_tokens": (dataset.training_tokens + dataset.validation_tokens) / dataset.documents,
        "steps": steps.count,
        "first_step_seconds": first.seconds,
        "step_seconds": steps.seconds / steps.count,
        "between_steps_seconds": steps.between,
        "evaluation_seconds_a_token": evaluation,
        "sample_seconds_a_token": sample,
        "checkpoint_seconds": steps.checkpoint,
        "built_memory": built,
        "step_memory": first.memory,
        "peak_memory": peak_memory(),
        "device_memory": compute.backend.memory_held(),
        "environment": environment,
    }


@dataclass(frozen=True)
class _Steps:
    """Training `seconds` of `count` steps, those `between` two steps and those of the `checkpoint` after them; `memory`
    is the peak in bytes up to the end of the first step."""

    count: int
    seconds: float
    between: float
    checkpoint: float
    memory: int


def _held(run: Run) -> int:
    """Return the peak memory so far, in bytes, where the arrays live: on the GPU, or in the process."""
    device_memory = run.model.parameters().backend.memory_held()
    return peak_memory() if device_memory is None else device_memory


def _take_steps(run: Run, seconds: float) -> _Steps:
    """Train for about `seconds`, at least one step, then save a checkpoint."""
    first, trained = run.progress.step, run.progress.seconds
    until = time.perf_counter() + seconds
    ends, used, checkpoint, memory = [], [], 0.0, 0
    for event in train(run, should_stop=lambda: run.progress.step > first and time.perf_counter() >= until):
        if isinstance(event, Stepped):
            ends.append(time.perf_counter())
            used.append(run.progress.seconds)
            if len(ends) == 1:
                memory = _held(run)
                if first == 1:
                    print(as_json({"first_step_seconds": run.progress.seconds}), flush=True)
        elif isinstance(event, Saved):
            checkpoint = time.perf_counter() - ends[-1]
    between = (ends[-1] - ends[0] - (used[-1] - used[0])) / max(len(ends) - 1, 1)
    return _Steps(len(ends), run.progress.seconds - trained, between, checkpoint, memory)


def _compile_kernels(run: Run, tokens: np.ndarray) -> None:
    """Evaluate and sample a little, so that kernels compiled at their first use are compiled here."""
    evaluate(run.model, tokens[:2], run.tokenizer.bytes_per_token(), batch_size=1)
    next(generate(run.model, [run.tokenizer.bos], max_new_tokens=1, random=rng(run.config.run.seed, "sampling", 0)))


def _seconds_of_evaluation(run: Run, tokens: np.ndarray) -> float:
    """Evaluate on one batch, as the loop does; return the seconds per token predicted.

    In scalar mode one window is enough, as its graph is freed before the next.
    """
    batch_size = 1 if run.config.compute.mode == "scalar" else max(1, EVALUATION_BATCH // run.config.model.context)
    part = tokens[: batch_size * run.config.model.context + 1]

    def once() -> float:
        began = time.perf_counter()
        evaluate(run.predictor, part, run.tokenizer.bytes_per_token(), batch_size=batch_size)
        return time.perf_counter() - began

    seconds = once()
    return (once() if seconds < REPEATED else seconds) / (len(part) - 1)


def _seconds_of_sampling(run: Run) -> float:
    """Sample some tokens, as for an evaluation's sample; return the seconds per token."""
    tokens = generate(
        run.model,
        [run.tokenizer.bos],
        max_new_tokens=SAMPLE_LENGTH,
        random=rng(run.config.run.seed, "sampling", 0),
    )
    began = time.perf_counter()
    drawn = sum(1 for _ in itertools.takewhile(lambda _: time.perf_counter() - began < SAMPLING_SECONDS, tokens))
    return (time.perf_counter() - began) / max(drawn, 1)


if __name__ == "__main__":
    main(sys.argv[1])
