"""Find where a number became NaN or infinite: the failed computation is repeated, with every op checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygrad_chat.autograd import Node, Operation, PendingGradient, watched_ops
from tinygrad_chat.autograd.mode import Watcher
from tinygrad_chat.autograd.sweep import Rule
from tinygrad_chat.backend import array_module
from tinygrad_chat.models.protocol import LanguageModel
from tinygrad_chat.nn import Parameters
from tinygrad_chat.training.guards.watched_scalars import NotFiniteError, WatchedScalarModel, place
from tinygrad_chat.training.run import Run


def nonfinite_parameter(parameters: Parameters) -> str | None:
    """Return the name of the first parameter that holds NaN or infinity."""
    if parameters.finite():
        return None
    return next(name for name, master in parameters.masters() if not _finite(master))


def explain_gradient(run: Run, gradient: Callable[[LanguageModel], object]) -> str:
    """Compute a gradient again; return which op of which layer was the first to give NaN or infinity."""
    model = _watchable(run)
    found = _first_found(model, gradient)
    if found:
        return found
    parameters = model.parameters()
    gradients = {name: parameters[name].grad for name in parameters}
    for name, d_parameter in gradients.items():
        if not _finite(d_parameter):
            return f"first in the gradient of {name}, a sum of finite parts that overflows"
    largest = max(gradients, key=lambda name: float(abs(gradients[name]).max()))
    return f"which overflows though every gradient is finite; the largest is that of {largest}"


def explain_prediction(run: Run, predict: Callable[[LanguageModel], object]) -> str:
    """Predict again; return which op of which layer was the first to give NaN or infinity."""
    return _first_found(_watchable(run), predict) or "though the model's logits are finite"


def _watchable(run: Run) -> LanguageModel:
    """Return the run's model or, in scalar mode, one of the same weights that checks every number it computes."""
    if run.config.compute.mode == "tensor":
        return run.model
    mine = run.model.parameters()
    return WatchedScalarModel(run.model.vocabulary, run.config.model, compute=mine.compute, weights=mine.state())


def _first_found(model: LanguageModel, work: Callable[[LanguageModel], object]) -> str | None:
    parameters = model.parameters()
    unfit = nonfinite_parameter(parameters)
    if unfit:
        return f"as the last update left NaN or infinity in {unfit}"
    try:
        with watched_ops(_watcher(parameters)):
            work(model)
    except NotFiniteError as found:
        return f"first in {found}"
    return None


def _watcher(parameters: Parameters) -> Watcher:
    """Return a watcher that checks every op's result and, in the backward pass, every gradient its rule returns."""
    names = {id(parameters[name]): name for name in parameters}
    before: list[str] = []

    def watch(operation: Operation, inputs: Sequence[Any], options: Any) -> Callable[[Any, Rule], Rule]:
        nonlocal before
        own = [names[id(x)] for x in inputs if id(x) in names]
        where = place(operation.name, own, before)
        before = own or before

        def seen(out: Any, rule: Rule) -> Rule:
            if not all(map(_finite, out if isinstance(out, tuple) else (out,))):
                raise NotFiniteError(f"the result of {where}")

            def watched_rule(*d_outs: Any) -> Any:
                gradients = rule(*d_outs)
                for x, d_x in zip(inputs, gradients, strict=False):
                    found = d_x.array() if isinstance(d_x, PendingGradient) else d_x
                    if isinstance(x, Node) and found is not None and not _finite(found):
                        raise NotFiniteError(f"the gradient from {where}")
                return gradients

            return watched_rule

        return seen

    return watch


def _finite(array: Any) -> bool:
    numbers = array.astype(np.float32) if array.dtype.name == "bfloat16" else array
    return bool(array_module(array).isfinite(numbers).all())
