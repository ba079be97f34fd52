"""Is an algorithm that was timed faster than cuBLAS's own choice? And gelu within a product faster than after it?

The products are those of a training step of GPT-2 124M, and each way's values are compared before its time is taken.
gelu is of the tanh form, ours and cublasLt's. Within the product, the values before gelu are written too, as its slope
needs them.
"""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.gpu.engines import backend_of
from bench.gpu.stages import Record, Settings
from tinygrad_chat import ops
from tinygrad_chat.autograd import choosing_products
from tinygrad_chat.backend import Backend, Compute, ProductChoices, array_module, load_kernels
from tinygrad_chat.errors import BackendError
from tinygrad_chat.kernels.cuda.cublas import Product, check, cublas_of
from tinygrad_chat.kernels.cuda.cublas_lt import ALIGNMENT, CublasLt, Plan
from tinygrad_chat.kernels.cuda.matmul import gemm, product_of
from tinygrad_chat.kernels.cuda.plans import fastest

REPEATS = 10
FAR = 0.02  # as a share of the mean value: more than rounding to bfloat16 in between changes

# From cublasLt.h of cuBLAS 13.
DESC_EPILOGUE, DESC_EPILOGUE_AUX_POINTER, DESC_EPILOGUE_AUX_LD = 7, 11, 12
EPILOGUE_GELU_AUX, EPILOGUE_DGELU = 160, 192


@dataclass(frozen=True)
class Sizes:
    """Of a step: tokens, channels, vocabulary."""

    N: int
    C: int
    V: int

    def layers(self) -> dict[str, tuple[int, int]]:
        """Return the widths before and behind each kind of layer."""
        C = self.C
        return {"q, k, v": (C, 3 * C), "attention": (C, C), "up": (C, 4 * C), "down": (4 * C, C), "head": (C, self.V)}


GPT2, TRIAL = Sizes(N=16 * 1024, C=768, V=50304), Sizes(N=16, C=8, V=40)


def measure_products(settings: Settings, record: Record) -> None:
    """Measure each product by a plan and by cuBLAS, and gelu within the products around it and beside them."""
    if not settings.trial:
        _measure(Compute.choose(backend_of(settings)), GPT2, record)
    elif shutil.which("g++") or shutil.which("clang++"):
        from tests.cuda_on_cpu.device import DEVICE, standing_in

        with standing_in():
            _measure(Compute.choose(DEVICE), TRIAL, record)


def _measure(compute: Compute, sizes: Sizes, record: Record) -> None:
    backend, tf32 = compute.backend, compute.dtype == "tf32"
    for layer, (before, behind) in sizes.layers().items():
        x, weight = _numbers(compute, sizes.N, before), _numbers(compute, behind, before)
        d_out = _numbers(compute, sizes.N, behind)
        products = {
            "forward": (x, weight.T, x.dtype),
            "gradient of the input": (d_out, weight, x.dtype),
            "gradient of the weight": (d_out.T, x, np.float32),
        }
        for part, (left, right, dtype) in products.items():
            out = backend.xp.empty((left.shape[0], right.shape[1]), dtype)
            seconds, values = {}, []
            for way, choices in (("plan", ProductChoices()), ("cublas", None)):
                with choosing_products(choices):
                    work = lambda: gemm(left, right, out, tf32=tf32)  # noqa: E731, B023 - called within the loop
                    seconds[way] = _seconds(backend, work)
                values.append(out.copy())
            operations = 2 * out.size * left.shape[1]
            far = _distance(backend, *values)
            record.say("product", layer=layer, part=part, operations=operations, distance=far, seconds=seconds)
    _measure_gelu(compute, sizes, record)


def _measure_gelu(compute: Compute, sizes: Sizes, record: Record) -> None:
    """Compare gelu behind the product `up`, and its slope behind the gradient of the input of `down`."""
    backend, tf32, gelu = compute.backend, compute.dtype == "tf32", load_kernels("cuda")[ops.gelu]
    x, up = _numbers(compute, sizes.N, sizes.C), _numbers(compute, 4 * sizes.C, sizes.C)
    d_out, down = _numbers(compute, sizes.N, sizes.C), _numbers(compute, sizes.C, 4 * sizes.C)
    inner, fused, apart = (backend.xp.empty((sizes.N, 4 * sizes.C), x.dtype) for _ in range(3))
    gemm(x, up.T, inner, tf32=tf32)
    slope_of = gelu(inner)[1]
    cases = {
        "gelu": (EPILOGUE_GELU_AUX, x, up.T, lambda product: gelu(product)[0]),
        "slope of gelu": (EPILOGUE_DGELU, d_out, down, lambda product: slope_of(product)[0]),
    }
    for name, (epilogue, left, right, then) in cases.items():
        try:
            run = _with_epilogue(epilogue, left, right, fused, inner, tf32=tf32)
        except (OSError, AttributeError, BackendError) as error:
            record.say("no epilogue", epilogue=name, reason=str(error))
            continue
        with choosing_products(ProductChoices()):
            wanted = then(gemm(left, right, apart, tf32=tf32))
            beside = _seconds(backend, lambda: then(gemm(left, right, apart, tf32=tf32)))  # noqa: B023 - at once
        run()
        far = _distance(backend, fused, wanted)
        within = _seconds(backend, run) if far < FAR else None
        record.say("epilogue", epilogue=name, distance=far, seconds={"within": within, "beside": beside})


class _EpiloguePlan(Plan):
    """A product with gelu, or its slope, of which `inner` holds the values before it."""

    def __init__(self, light: CublasLt, product: Product, epilogue: int, inner: Any) -> None:
        super().__init__(light, product, ALIGNMENT)
        for attribute, value in {
            DESC_EPILOGUE: ctypes.c_uint32(epilogue),
            DESC_EPILOGUE_AUX_POINTER: ctypes.c_void_p(inner.data.ptr),
            DESC_EPILOGUE_AUX_LD: ctypes.c_int64(product.out.leading),
        }.items():
            light.set("MatmulDesc", self._operation, attribute, value)


def _with_epilogue(epilogue: int, left: Any, right: Any, out: Any, inner: Any, *, tf32: bool) -> Callable[[], None]:
    """Return the product as a call, by its fastest algorithm. Raises BackendError where there is none, and OSError or
    AttributeError without cublasLt."""
    xp = array_module(out)
    cublas, light = cublas_of(xp), CublasLt(xp)
    product, factors = product_of(left, right, out, tf32=tf32)
    plan = _EpiloguePlan(light, product, epilogue, inner)
    algorithm = fastest(plan, plan.algorithms(cublas), out, cublas, factors)
    if algorithm is None:
        raise BackendError("cublasLt has no algorithm for it")
    plan.algorithm = algorithm
    return lambda: check(plan.multiply(cublas, factors, xp.cuda.get_current_stream().ptr))


def _numbers(compute: Compute, rows: int, columns: int) -> Any:
    """Return a matrix of random numbers, drawn for one row and one column: they go to the device quickly. A product of
    two such matrices has values of about 1, where gelu is neither 0 nor a straight line."""
    random = np.random.default_rng(rows + columns)
    column, row = (compute.backend.xp.asarray(random.normal(size=n).astype(np.float32)) for n in (rows, columns))
    return (column[:, None] * row * columns**-0.25).astype(compute.array_dtype)


def _seconds(backend: Backend, work: Callable[[], Any]) -> float:
    """Return the device's time for work, after once that does not count."""
    work()
    begin = backend.mark()
    for _ in range(REPEATS):
        work()
    end = backend.mark()
    backend.wait_for(end)
    return backend.seconds_between(begin, end) / REPEATS


def _distance(backend: Backend, ours: Any, theirs: Any) -> float:
    """Return the mean difference as a share of the mean value, both without their signs."""
    xp, theirs = backend.xp, theirs.astype(np.float32)
    return float(xp.abs(ours.astype(np.float32) - theirs).mean() / xp.abs(theirs).mean())
