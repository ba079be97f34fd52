"""Every kernel once, under each of compute-sanitizer's tools: memory, races, reads of what nobody wrote, barriers.

    python -m bench.gpu.sanitizer BACKEND

runs the kernels: training steps and some tokens of generation of small models that have all of them between them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np

from bench import turns
from bench.gpu.correctness import MODELS, NANOCHAT, VOCABULARY
from bench.gpu.engines import LeftOutError, backend_of
from bench.gpu.stages import Record, Settings
from tinygrad_chat import Tensor, ops
from tinygrad_chat.autograd import no_grad
from tinygrad_chat.backend import EAGER_STEPS, Backend, Compute
from tinygrad_chat.inference.engine import Engine
from tinygrad_chat.inference.options import GenerationOptions
from tinygrad_chat.kernels.cuda import flash_attention
from tinygrad_chat.models.gpt import GPT
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.optim import AdamW
from tinygrad_chat.training.build import build_train_step
from tinygrad_chat.training.step import TrainStep

PROGRAM = "compute-sanitizer"
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
SECONDS = 100.0  # for each tool: kernels run many times slower under them
WRONG = 86  # the status with which a tool ends that found something
LONGEST = 2000  # characters of its report: the end, where it sums up
BATCH = 2
SMALL = 100  # tokens of a vocabulary
LARGE = 54_000  # whose rows of logits no block holds in its registers

WIDE_HEADS = ModelOptions(layers=1, heads=1, width=128, context=32)
LONG_ROWS = ModelOptions(layers=1, heads=2, width=64, context=16, activation="squared_relu")
LONG_NORMS = ModelOptions(layers=1, heads=8, width=1032, context=16)
STEPS = {
    **{name: (options, SMALL) for name, options in MODELS.items()},
    "heads of 128 channels": (WIDE_HEADS, SMALL),
    "rows of logits too long for registers": (LONG_ROWS, LARGE),
    "rows of norms too long for registers": (LONG_NORMS, SMALL),
}


def run_steps(backend: str | Backend) -> None:
    """Take a training step of each model, by AdamW and by Muon, evaluate it once and read some tokens one at a time, in
    each of the back end's types but tf32, which has the kernels of float32. Where attention is by wgmma, by mma.sync as
    well."""
    backend = Compute.choose(backend).backend
    for dtype in sorted({"float32", *backend.dtypes} - {"tf32"}):
        compute = Compute.choose(backend, dtype=dtype)
        for options, vocabulary in STEPS.values():
            _run_model(options, vocabulary, compute)
        if dtype == "bfloat16" and flash_attention.has_wgmma(backend.xp):
            with mock.patch.object(flash_attention, "WITH_WGMMA", ()):
                for options in (MODELS["GPT-2"], WIDE_HEADS):
                    _run_model(options, SMALL, compute)
        model = GPT(VOCABULARY, NANOCHAT.model, compute=compute)
        build_train_step(NANOCHAT, model)(_draw(NANOCHAT.model, VOCABULARY), 0)
        _run_ops(compute)
        compute.backend.synchronize()


def _run_model(options: ModelOptions, vocabulary: int, compute: Compute) -> None:
    model, batch = GPT(vocabulary, options, compute=compute), _draw(options, vocabulary)
    step = TrainStep(model, AdamW(model.parameters()), lambda position: 1e-3, clip=1.0)
    step(batch, 0, random=np.random.default_rng(0))
    with no_grad():
        model.loss(*batch)
    _generate(model)


def _draw(options: ModelOptions, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.random.default_rng(0).integers(vocabulary, size=(BATCH, options.context + 1))
    return tokens[:, :-1], tokens[:, 1:]


def _generate(model: GPT) -> None:
    """Let prompts of different lengths go on by a few tokens: enough for a step to be captured and replayed."""
    engine = Engine(model, None, rows=BATCH)
    options = GenerationOptions(max_new_tokens=EAGER_STEPS + 3)
    engine.finish([engine.submit(range(1, length), options) for length in (3, 6)])


def _run_ops(compute: Compute) -> None:
    """Compute the ops that no built-in model has, and their gradients: relu, and rotary positions with a gain."""
    xp = compute.backend.xp
    x, gain = (Tensor(xp.ones(shape, compute.array_dtype)) for shape in ((BATCH, 8, 64), (32,)))
    cosine, sine = (xp.ones((8, 16), "float32") for _ in range(2))
    for out in (ops.relu(x), ops.rotary(x, gain, cosine=cosine, sine=sine, rms=1.0)):
        out.backward(xp.ones_like(out.data))


def sanitize(settings: Settings, record: Record) -> None:
    """Run them under each tool. Raises LeftOutError where there is none, BenchmarkError if any found something."""
    program = shutil.which(PROGRAM)
    if program is None and not settings.trial:
        raise LeftOutError(f"{PROGRAM} is not installed: it is part of the CUDA toolkit")
    found = []
    for tool in TOOLS:
        under = [program, "--tool", tool, "--error-exitcode", str(WRONG)] if program else []
        outcome, report = _run([*under, sys.executable, "-m", __spec__.name, backend_of(settings)])
        record.say("sanitizer", tool=tool if program else "none", outcome=outcome, report=report)
        found += [] if outcome == "nothing found" else [tool]
        if program is None:
            break
    if found:
        raise turns.BenchmarkError(f"not clean: {', '.join(found)}")


def _run(command: list[str]) -> tuple[str, str]:
    """Return what a run under a tool came to, and the end of its report."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
            cwd=Path(__file__).parents[2],
        )
    except subprocess.TimeoutExpired as late:
        return f"ran past {SECONDS:g} s", bytes(late.stdout or b"").decode(errors="replace")[-LONGEST:]
    outcomes = {0: "nothing found", WRONG: "found errors"}
    return outcomes.get(done.returncode, f"ended with status {done.returncode}"), done.stdout[-LONGEST:]


def main(backend: str) -> None:
    """Run the steps, without CuPy's pool: in it, arrays lie side by side, and one that is overrun does not show."""
    if backend == "cupy":
        import cupy  # pyright: ignore[reportMissingImports]

        cupy.cuda.set_allocator(None)
    run_steps(backend)


if __name__ == "__main__":
    main(sys.argv[1])
