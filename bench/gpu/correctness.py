"""Are the kernels right? Each is compiled, and what models compute with them is compared with the host.

Three models have every op of the built-in ones between them. Compared are the gradient of each parameter, the losses of
some steps, and the logits of tokens that are read one at a time.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Mapping
from typing import Any
from unittest import mock

import numpy as np

from bench import turns
from bench.gpu.engines import backend_of
from bench.gpu.models import nanochat_config
from bench.gpu.products import measure_products
from bench.gpu.stages import Record, Settings
from bench.kernels import files
from tinygrad_chat.backend import Compute, ProductChoices, to_host
from tinygrad_chat.kernels.cuda import flash_attention
from tinygrad_chat.kernels.cuda.launch import load_module, own_architecture, source
from tinygrad_chat.models.gpt import GPT
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.optim import AdamW
from tinygrad_chat.training.step import TrainStep

VOCABULARY, BATCH = 100, 4
SIZES: dict[str, Any] = {"layers": 2, "heads": 2, "width": 128, "context": 96}  # heads of 64 channels
LLAMA: dict[str, Any] = {
    "norm": "rmsnorm",
    "activation": "swiglu",
    "positions": "rotary",
    "key_value_heads": 1,
    "tied": False,
}
NANOCHAT = nanochat_config({"depth": 2, "context": 96, "width": 128, "heads": 2}, VOCABULARY)
MODELS = {
    "GPT-2": ModelOptions(**SIZES, bias=True, dropout=0.1),
    "Llama": ModelOptions(**SIZES, **LLAMA),
    "nanochat": NANOCHAT.model,
}
CLOSE = {"float32": 1e-4, "tf32": 2e-2, "bfloat16": 0.1}
"""How far a gradient may lie from the host's, as a share of its norm; and, a tenth of it, a loss, as a share of it."""
STEPS, RATE = 20, 1e-3
PROMPT, NEW = 7, 9  # tokens: those that are read at once, and those after them
NOISE = 0.05  # on the first weights
FEW = 16  # numbers: such a parameter's gradient is a sum of which most cancels, so those of a model are taken as one
ENTRY = re.compile(r'extern "C" __global__ void(?:\s+__launch_bounds__\([\w, ]+\))?\s+(\w+)\(')


def check_kernels(settings: Settings, record: Record) -> None:
    """Compile each kernel, then compare, and measure products. Raises BenchmarkError, when all is said, where something
    is not right."""
    compute = Compute.choose(backend_of(settings))
    wrong = [] if settings.trial else compile_kernels(compute.backend.xp, compute.backend.dtypes, record)
    for dtype in compute.backend.dtypes:
        wrong += compare_with_host(Compute.choose(compute.backend, dtype=dtype), record)
    wrong += compare_without_wgmma(compute, record)
    if wrong:
        raise turns.BenchmarkError(f"not as expected: {', '.join(wrong)}")
    measure_products(settings, record)


def compile_kernels(xp: Any, dtypes: tuple[str, ...], record: Record) -> list[str]:
    """Compile each file for each type; return those that fail. Of kernels that no macro names, registers are told."""
    failed = []
    architectures = {None, f"sm_{xp.cuda.Device().compute_capability}a"}
    for file, real in files():
        if real not in {"float32", *dtypes} or own_architecture(file) not in architectures:
            continue
        began = time.perf_counter()
        try:
            module = load_module(xp, file, np.dtype(real))
            kernels = {
                name: [getattr(function, each, None) for each in ("num_regs", "local_size_bytes")]
                for name in ENTRY.findall(source(file))
                if name != "name"
                for function in [module.get_function(name)]
            }
            seconds = round(time.perf_counter() - began, 2)
            record.say("compiled", file=file, real=real, seconds=seconds, registers_and_spills=kernels)
        except Exception as error:
            failed.append(f"{file} for {real}")
            record.say("compilation failed", file=file, real=real, reason=str(error)[:2000])
    return failed


def compare_without_wgmma(compute: Compute, record: Record) -> list[str]:
    """Compare with the host what attention by mma.sync computes, on a device where it is by wgmma otherwise."""
    if "bfloat16" not in compute.backend.dtypes or not flash_attention.has_wgmma(compute.backend.xp):
        return []
    with mock.patch.object(flash_attention, "WITH_WGMMA", ()):
        return compare_with_host(Compute.choose(compute.backend, dtype="bfloat16"), record, " by mma.sync")


def compare_with_host(compute: Compute, record: Record, way: str = "") -> list[str]:
    """Compare each model's gradient, losses and logits with the reference ops on the host; return what differs. `way`
    says what is special about the kernels, if anything."""
    wrong = []
    for name in MODELS:
        what = f"{name}{way} in {compute.dtype}"
        try:
            ours, theirs = _train(name, BATCH, STEPS, compute), _on_host(name, BATCH, STEPS)
        except Exception as error:
            wrong.append(what)
            record.say(
                "step failed", model=name + way, dtype=compute.dtype, reason=f"{type(error).__name__}: {error}"[:2000]
            )
            continue
        errors = _errors(ours[0], theirs[0])
        worst = max(errors, key=lambda key: errors[key] if np.isfinite(errors[key]) else np.inf)
        losses = float(np.max(np.abs(np.subtract(ours[1], theirs[1]) / np.array(theirs[1]))))
        logits = float(np.linalg.norm(ours[2] - theirs[2]) / np.linalg.norm(theirs[2]))
        limit = CLOSE[compute.dtype]
        close = bool(errors[worst] <= limit and losses <= limit / 10 and logits <= limit)
        wrong += [] if close else [what]
        found = {"gradient": errors[worst], "of": worst, "losses": losses, "logits": logits}
        found |= {"limit": limit, "close": close}
        record.say("compared with the host", model=name + way, dtype=compute.dtype, **found)
    return wrong


@functools.cache
def _on_host(name: str, rows: int, steps: int) -> tuple[dict[str, np.ndarray], list[float], np.ndarray]:
    """Return what the reference ops compute on the host, once for all that is compared with it."""
    return _train(name, rows, steps, Compute.choose("numpy", "reference"))


def _train(name: str, rows: int, steps: int, compute: Compute) -> tuple[dict[str, np.ndarray], list[float], np.ndarray]:
    """Return the first gradient by parameter, computed call by call, and the losses of all steps and the logits (N, B,
    V) of tokens read one at a time, most of both replayed as graphs where there are such, from the same weights
    everywhere."""
    tokens = np.random.default_rng(0).integers(VOCABULARY, size=(rows, SIZES["context"] + 1))
    model = GPT(VOCABULARY, MODELS[name], compute=compute)
    parameters, batch = model.parameters(), (tokens[:, :-1], tokens[:, 1:])
    noise = np.random.default_rng(0)  # nanochat's first weights are in part zeros, behind which gradients are, too
    drawn = parameters.state()
    parameters.load({name: x + NOISE * noise.standard_normal(x.shape, np.float32) for name, x in drawn.items()})
    step = TrainStep(model, AdamW(parameters), lambda position: RATE, clip=1.0, graphs=True, products=ProductChoices())
    cache = model.new_cache(rows)
    read = [tokens[:, :PROMPT], *np.split(tokens[:, PROMPT : PROMPT + NEW], NEW, axis=1)]
    logits = np.stack([to_host(model.next_token_logits(each, cache)) for each in read])
    step.gradient(batch, random=np.random.default_rng(0))
    flat = np.array(to_host(parameters.gradient))
    gradient = {name: flat[span] for name, span in parameters.spans()}
    results = [step(batch, number, random=np.random.default_rng(number)) for number in range(steps)]
    if cache.captured is not None and not len(cache.captured):
        raise turns.BenchmarkError(f"no step of generation was captured: {cache.captured.refused}")
    if step.why_eager is not None:
        raise turns.BenchmarkError(f"no step of training was captured: {step.why_eager}")
    return gradient, [float(result.loss) for result in results], logits


def _errors(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return each gradient's distance from the host's as a share of its norm, or of the norm that it would have if all
    elements were of one size: some gradients are sums that cancel out, such as those of the biases of keys."""
    ours, theirs = _joined(ours), _joined(theirs)
    square = sum(float(np.sum(np.square(x))) for x in theirs.values()) / sum(x.size for x in theirs.values())
    usual = {name: np.sqrt(x.size * square) for name, x in theirs.items()}
    return {
        name: float(np.linalg.norm(ours[name] - x) / max(float(np.linalg.norm(x)), usual[name]))
        for name, x in theirs.items()
    }


def _joined(gradients: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the gradients by parameter, those of `FEW` numbers as one."""
    small = {name: x for name, x in gradients.items() if x.size <= FEW}
    joined = {", ".join(small): np.concatenate(list(small.values()))} if small else {}
    return {**{name: x for name, x in gradients.items() if name not in small}, **joined}
