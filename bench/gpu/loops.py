"""Hot loops, one at a time: ours, what ours was before, and the reference op on the device; forward and backward.

At the sizes of GPT-2 124M. They take turns. Results must agree before anything is timed. CuPy computes reference ops in
float32, so each ratio is of loops in one type.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np

from bench import turns
from bench.gpu.engines import backend_of
from bench.gpu.models import CONFIGURATIONS, TRIAL
from bench.gpu.stages import Record, Settings
from tinygrad_chat import ops
from tinygrad_chat.autograd import PendingGradient, computing_with, find_kernel
from tinygrad_chat.backend import Backend, Compute
from tinygrad_chat.kernels.cuda import cross_entropy, flash_attention, normalization

OURS, OLD, BY_MMA, REFERENCE = "ours", "ours before", "ours by mma.sync", "reference"
BEFORE: dict[str, dict[str, tuple[ModuleType, str, Any]]] = {
    "attention": {
        OLD: (flash_attention, "WIDTHS", ()),  # products around a softmax, with the scores in memory
        BY_MMA: (flash_attention, "WITH_WGMMA", ()),  # on a device where tiles are multiplied by wgmma
    },
    "cross_entropy": {OLD: (cross_entropy, "PIECES", 0)},  # logits are read again for the gradient
    "add_layernorm": {OLD: (normalization, "MAX_HELD", 0)},  # rows are read again for the gradients of gain and bias
}
"""op -> version -> a number of its launcher, and the value with which it takes other kernels, in bfloat16"""

AGREEING = {"float32": 1e-3, "bfloat16": 2e-2}  # of each result's norm
REPEATED = 5  # in a round


@dataclass(frozen=True)
class Loop:
    """An op with its inputs, as drawn on the host, and its options."""

    op: Any
    inputs: tuple[np.ndarray, ...]
    options: Mapping[str, Any]


def draw_loops(B: int, V: int, T: int, C: int, H: int) -> Iterator[Loop]:
    """Yield the loops of a GPT of these sizes, one at a time: together they might not fit."""
    random = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, np.float32)

    yield Loop(ops.attention, tuple(drawn(B, T, C) for _ in range(3)), {"heads": H})
    yield Loop(ops.cross_entropy, (drawn(B, T, V), random.integers(V, size=(B, T))), {})
    yield Loop(ops.add_layernorm, (drawn(B, T, C), drawn(B, T, C), drawn(C)), {})
    yield Loop(ops.gelu, (drawn(B, T, 4 * C),), {})


def compare_loops(settings: Settings, record: Record) -> None:
    """Time them. Raises BenchmarkError, when all is said, where results differ."""
    ((_, sizes),) = TRIAL.items() if settings.trial else [("", CONFIGURATIONS["GPT-2 124M"])]
    options = sizes.options
    backend = Compute.choose(backend_of(settings)).backend
    wrong = []
    for loop in draw_loops(sizes.batch, sizes.vocabulary, options.context, options.width, options.heads):
        for dtype in (each for each in backend.dtypes if each != "tf32"):
            try:
                compare(loop, Compute.choose(backend, dtype=dtype), settings.rounds, record)
            except Exception as error:
                wrong.append(f"{loop.op.name} in {dtype}")
                record.say("loop failed", op=loop.op.name, dtype=dtype, reason=f"{type(error).__name__}: {error}"[:500])
    if wrong:
        raise turns.BenchmarkError(f"not as expected: {', '.join(wrong)}")


def compare(loop: Loop, compute: Compute, rounds: int, record: Record) -> None:
    """Let a loop's versions agree, then take turns. Raises BenchmarkError where they do not agree."""
    backend, name = compute.backend, loop.op.name
    inputs = [backend.xp.asarray(x if x.dtype.kind == "i" else x.astype(compute.array_dtype)) for x in loop.inputs]
    with computing_with(compute):
        kernel = find_kernel(loop.op, loop.op.reference, inputs[0])
    versions: dict[str, Callable[[], list[Any]]] = {OURS: partial(_both_ways, kernel, inputs, loop.options)}
    if compute.dtype == "bfloat16":
        for version, changed in BEFORE.get(name, {}).items():
            if version != BY_MMA or flash_attention.has_wgmma(backend.xp):
                versions[version] = partial(_with, *changed, versions[OURS])
    if compute.dtype == "float32":
        versions[REFERENCE] = partial(_both_ways, loop.op.reference, inputs, loop.options)
    with computing_with(compute):
        norms = {version: [_norm(backend, x) for x in run()] for version, run in versions.items()}
        for version, found in norms.items():
            if not np.allclose(found, norms[OURS], rtol=AGREEING[compute.dtype]):
                raise turns.BenchmarkError(f"{version} has results of the norms {found}, {OURS} of {norms[OURS]}")
        seconds: dict[str, list[float]] = {version: [] for version in versions}
        for _ in range(rounds):
            for version, run in versions.items():
                seconds[version].append(_seconds(backend, run))
    for version, each in seconds.items():
        ratio = statistics.median(each) / statistics.median(seconds[OURS])
        found = {"seconds": statistics.median(each), "this_over_ours": ratio, "samples": each}
        record.say("loop", op=name, dtype=compute.dtype, version=version, **found)


def _both_ways(function: Callable[..., Any], inputs: list[Any], options: Mapping[str, Any]) -> list[Any]:
    """Return an op's results and its gradients, for an upstream gradient that is the results themselves."""
    out, rule = function(*inputs, **options)
    outs = out if isinstance(out, tuple) else (out,)
    gradients = [gradient for gradient in _as_tuple(rule(*outs)) if hasattr(gradient, "shape")]
    return [*outs, *(each.array() if isinstance(each, PendingGradient) else each for each in gradients)]


def _as_tuple(gradients: Any) -> tuple[Any, ...]:
    return gradients if isinstance(gradients, tuple) else (gradients,)


def _with(module: ModuleType, number: str, value: Any, run: Callable[[], list[Any]]) -> list[Any]:
    with mock.patch.object(module, number, value):
        return run()


def _norm(backend: Backend, x: Any) -> float:
    x = backend.xp.asarray(x).astype(np.float32)
    return float(np.sqrt(backend.to_host((x * x).sum())))


def _seconds(backend: Backend, run: Callable[[], Any]) -> float:
    begin = backend.mark()
    for _ in range(REPEATED):
        run()
    end = backend.mark()
    backend.synchronize()
    return backend.seconds_between(begin, end) / REPEATED
