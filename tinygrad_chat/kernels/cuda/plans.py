"""The plan of each product of a training step: made when the product first comes, with its fastest algorithm."""

from __future__ import annotations

from typing import Any

from tinygrad_chat.backend import ProductChoices, backend_of
from tinygrad_chat.errors import BackendError
from tinygrad_chat.kernels.cuda.cublas import Cublas, Factors, Product
from tinygrad_chat.kernels.cuda.cublas_lt import ALIGNMENT, Algorithm, CublasLt, Plan

REPEATS = 3  # of a product that is timed, after one that is not

_MISSING = object()


def find_plan(choices: ProductChoices, out: Any, cublas: Cublas, product: Product, factors: Factors) -> Plan | None:
    """Return the plan of a product, made now if this is its first time; None if cuBLAS is to compute it by its own
    choice: cublasLt is missing or has no algorithm, or a plan would have to be made while a CUDA graph is captured.

    To find the fastest algorithm, all are run on the operands themselves. The values in `out` are restored if
    they count. Whether a product is written or added makes no difference to its plan, so that a step which does the
    one gives the bits of a step which does the other to zeros.
    """
    addresses = factors.a | factors.b | factors.out | ALIGNMENT
    key = product, addresses & -addresses  # the largest power of 2, up to ALIGNMENT, that divides all of them
    plan = choices.plans.get(key, _MISSING)
    if plan is not _MISSING:
        return plan
    backend = backend_of(out)
    if len(choices.plans) >= choices.MOST or backend.xp.cuda.get_current_stream().is_capturing():
        return None
    if choices.library is None:
        choices.library = _open(backend, choices)
    choices.plans[key] = _make(choices, out, cublas, *key, factors) if choices.library else None
    return choices.plans[key]


def _open(backend: Any, choices: ProductChoices) -> CublasLt | bool:
    """Return the library, False if it is missing or too old."""
    try:
        light = CublasLt(backend.xp)
    except (OSError, AttributeError):
        choices.begin(f"{backend.device}, without cublasLt")
        return False
    choices.begin(f"{backend.device}, cublasLt {light.version}")
    return light


def _make(
    choices: ProductChoices, out: Any, cublas: Cublas, product: Product, alignment: int, factors: Factors
) -> Plan | None:
    try:
        plan = Plan(choices.library, product, alignment)
    except BackendError:
        return None
    offered = plan.algorithms(cublas)
    name = _name(product, alignment)
    kept = choices.algorithms.get(name)
    # What a file says is only compared, never passed on: it may hold anything.
    algorithm = next((each for each in offered if each.name == kept), None)
    if algorithm is None:
        if kept is not None:
            choices.tell("cublasLt no longer offers an algorithm of it")
        algorithm = fastest(plan, offered, out, cublas, factors)
    if algorithm is None:
        return None
    plan.algorithm = algorithm
    choices.choose(name, algorithm.name)
    return plan


def _name(product: Product, alignment: int) -> str:
    """Return a product as text, as choices know it: its numbers in order."""
    numbers = (*product[:5], *product.a, *product.b, *product.out, alignment)
    return " ".join(map(str, numbers))


def fastest(plan: Plan, offered: list[Algorithm], out: Any, cublas: Cublas, factors: Factors) -> Algorithm | None:
    """Return the algorithm that takes the least time, None if none works."""
    backend = backend_of(out)
    stream = backend.xp.cuda.get_current_stream().ptr
    before = out.copy() if factors.beta.value else None
    best, least = None, float("inf")
    for plan.algorithm in offered:
        if plan.multiply(cublas, factors, stream) != 0:
            continue
        begin = backend.mark()
        for _ in range(REPEATS):
            plan.multiply(cublas, factors, stream)
        end = backend.mark()
        backend.wait_for(end)
        seconds = backend.seconds_between(begin, end)
        if seconds < least:
            best, least = plan.algorithm, seconds
    if before is not None:
        out[...] = before
    return best
