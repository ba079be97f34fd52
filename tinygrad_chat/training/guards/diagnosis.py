"""Where a loss or a gradient became NaN or infinite: the step that went wrong, once more, with every op watched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygrad_chat.autograd import Node, Operation, PendingGradient, watched_ops
from tinygrad_chat.autograd.mode import Watcher
from tinygrad_chat.autograd.sweep import Rule
from tinygrad_chat.backend import array_module
from tinygrad_chat.models.gpt import GPT
from tinygrad_chat.models.protocol import LanguageModel
from tinygrad_chat.nn import Parameters
from tinygrad_chat.training.run import Run


class _FoundError(Exception):
    """The first result that is NaN or infinite."""


def nonfinite_parameter(parameters: Parameters) -> str | None:
    """Return the name of the first parameter that holds NaN or infinity."""
    if parameters.finite():
        return None
    return next(name for name, master in parameters.masters() if not _finite(master))


def explain_divergence(run: Run, work: Callable[[LanguageModel], object]) -> str:
    """Do `work` again; return which op of which layer was the first to give NaN or infinity.

    In scalar mode the same step is computed with arrays of float64, whose ops have names.
    """
    model = run.model if run.config.compute.mode == "tensor" else _as_tensors(run)
    parameters = model.parameters()
    unfit = nonfinite_parameter(parameters)
    if unfit:
        return f"as the last update has left NaN or infinity in {unfit}"
    try:
        with watched_ops(_watcher(parameters)):
            work(model)
    except _FoundError as found:
        return f"first in {found}"
    largest = max(parameters, key=lambda name: float(abs(parameters[name].grad).max()))
    return f"too long for a float though each of its parts is finite; the largest part is that of {largest}"


def _as_tensors(run: Run) -> LanguageModel:
    """Return the run's scalar model on arrays, with the same weights."""
    mine = run.model.parameters()
    model = GPT(run.tokenizer.size, run.config.model, compute=mine.compute, dtype=mine.data.dtype)
    model.parameters().load(mine.state())
    return model


def _watcher(parameters: Parameters) -> Watcher:
    """Return what looks at every op's result and, in the backward sweep, at every gradient that its rule gives."""
    names = {id(parameters[name]): name.rpartition(".")[0] or name for name in parameters}
    layer = "the first layer"

    def watch(operation: Operation, inputs: Sequence[Any]) -> Callable[[Any, Rule], Rule]:
        nonlocal layer
        own = [names[id(x)] for x in inputs if id(x) in names]
        layer = own[0] if own else layer
        where = f"{operation.name} {'of' if own else 'after'} {layer}"

        def seen(out: Any, rule: Rule) -> Rule:
            if not all(map(_finite, out if isinstance(out, tuple) else (out,))):
                raise _FoundError(f"the result of {where}")

            def watched_rule(*d_outs: Any) -> Any:
                gradients = rule(*d_outs)
                for x, d_x in zip(inputs, gradients, strict=False):
                    found = d_x.array() if isinstance(d_x, PendingGradient) else d_x
                    if isinstance(x, Node) and found is not None and not _finite(found):
                        raise _FoundError(f"the gradient from {where}")
                return gradients

            return watched_rule

        return seen

    return watch


def _finite(array: Any) -> bool:
    numbers = array.astype(np.float32) if array.dtype.name == "bfloat16" else array
    return bool(array_module(array).isfinite(numbers).all())
