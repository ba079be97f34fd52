"""Plans of cublasLt: the fastest algorithm, chosen once for a product, and cuBLAS's own choice where there is none."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.cuda_on_cpu import tape
from tests.cuda_on_cpu.device import DEVICE, products_library, standing_in
from tests.cuda_on_cpu.places import needs_compiler
from tinygrad_chat.autograd import choosing_products
from tinygrad_chat.backend import ProductChoices
from tinygrad_chat.kernels.cuda import cublas_lt
from tinygrad_chat.kernels.cuda.matmul import gemm

pytestmark = needs_compiler
ANYWHERE, FASTEST, THIRDS = 1, 3, 4
"""Of the stand-in's algorithms: the only one for addresses that are not aligned, and the faster two."""


@pytest.fixture(autouse=True)
def device() -> Iterator[None]:
    with standing_in():
        yield


def on_device(*shape: int, dtype: str = "float32", seed: int = 0) -> Any:
    return DEVICE.xp.asarray(np.random.default_rng(seed).normal(size=shape).astype(dtype))


def runs() -> list[int]:
    """Return how often each algorithm has computed a product."""
    return [products_library().count_runs(number) for number in range(7)]


def ran(before: list[int]) -> dict[int, int]:
    """Return the algorithms that have run since, and how often."""
    return {number: now - then for number, (now, then) in enumerate(zip(runs(), before, strict=True)) if now > then}


def multiply(choices: ProductChoices | None, left: Any, right: Any, out: Any = None, **options: Any) -> np.ndarray:
    shape = (*left.shape[:-1], right.shape[-1])
    out = DEVICE.xp.empty(shape, np.float32) if out is None else out
    with choosing_products(choices):
        return DEVICE.to_host(gemm(left, right, out, **{"tf32": False, **options})).copy()


def test_the_fastest_algorithm_is_found_once_for_each_product_and_then_takes_one_call():
    choices, x = ProductChoices(), on_device(16, 16)
    before, searches = runs(), products_library().count_searches()
    multiply(choices, x, x)
    timed = 4  # each once, then three times by the clock
    assert ran(before) == {ANYWHERE: timed, FASTEST: timed + 1, THIRDS: timed}
    before = runs()
    for seed in range(3):
        multiply(choices, on_device(16, 16, seed=seed), x, scale=0.5, add=seed > 0)
    assert ran(before) == {FASTEST: 3}
    assert products_library().count_searches() == searches + 1
    assert len(choices.algorithms) == 1


OTHERS = {
    "another shape": lambda x: (x[:8], x),
    "another leading dimension": lambda x: (x[:, :8], x[:8]),
    "transposed": lambda x: (x.T, x),
    "a batch": lambda x: (x[None], x[None]),
    "not aligned": lambda x: (x.reshape(-1)[1:226].reshape(15, 15), x[:15, :15]),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_product_that_differs_in_anything_has_a_plan_of_its_own(other: str):
    choices, x = ProductChoices(), on_device(16, 16)
    multiply(choices, x, x)
    multiply(choices, *OTHERS[other](x))
    assert len(choices.plans) == 2
    multiply(choices, x, x, tf32=True)
    assert len(choices.plans) == 3


def test_operands_that_are_not_aligned_get_an_algorithm_that_needs_no_alignment():
    choices, before = ProductChoices(), runs()
    x = on_device(40).astype("bfloat16")[1:26].reshape(5, 5)
    multiply(choices, x, x)
    assert ran(before) == {ANYWHERE: 5}


def test_what_is_added_to_counts_once_though_algorithms_were_timed_on_it():
    choices, x, out = ProductChoices(), on_device(6, 6), on_device(6, 6, seed=1)
    wanted = 2 * DEVICE.to_host(x @ x) + DEVICE.to_host(out)
    np.testing.assert_allclose(multiply(choices, x, x, out, scale=2.0, add=True), wanted, rtol=1e-5, atol=1e-5)


def test_added_to_zeros_and_written_are_the_same_bits():
    """So that a step gives the same whether a gradient's first part is written or added."""
    x = on_device(33, 33)
    added = ProductChoices(), DEVICE.xp.zeros((33, 33), np.float32)
    np.testing.assert_array_equal(multiply(ProductChoices(), x, x), multiply(added[0], x, x, added[1], add=True))


def test_choices_made_earlier_are_used_again_though_others_are_faster_now(monkeypatch: pytest.MonkeyPatch):
    first, x = ProductChoices(), on_device(33, 33)
    products_library().set_duration(THIRDS, 1)
    try:
        product = multiply(first, x, x)
    finally:
        products_library().set_duration(THIRDS, 3)
    assert first.has_new
    again, before = ProductChoices(), runs()
    again.recall(first.made_by, first.algorithms)
    np.testing.assert_array_equal(multiply(again, x, x), product)
    assert ran(before) == {THIRDS: 1}
    assert not again.has_new
    assert again.told is None
    assert (multiply(ProductChoices(), x, x) != product).any()  # so the choice makes a difference


DAMAGE = {
    "too short": lambda name: name[:-2],
    "no bytes": lambda name: "no algorithm at all",
    "another algorithm": lambda name: f"ff{name[2:]}",
    "one that cannot be used": lambda name: f"00{name[2:]}",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_algorithm_that_the_library_does_not_offer_never_reaches_it(damage: str):
    choices, x = ProductChoices(), on_device(16, 16)
    multiply(choices, x, x)
    recalled, before = ProductChoices(), runs()
    recalled.recall(choices.made_by, {key: DAMAGE[damage](name) for key, name in choices.algorithms.items()})
    multiply(recalled, x, x)
    assert recalled.told == "cublasLt no longer offers an algorithm of it"
    assert recalled.algorithms == choices.algorithms
    assert ran(before)[FASTEST] == 5


def test_choices_of_another_device_or_version_are_made_again():
    choices, x = ProductChoices(), on_device(16, 16)
    choices.recall("a larger GPU, cublasLt 120000", {"1 2 3": "00"})
    multiply(choices, x, x)
    assert choices.told == "made on a larger GPU, cublasLt 120000, this is a stand-in, cublasLt 130100"
    assert len(choices.algorithms) == 1
    assert choices.has_new


def test_nothing_is_chosen_while_work_is_captured_and_what_was_is_captured():
    choices, x, out = ProductChoices(), on_device(16, 16), DEVICE.xp.zeros((16, 16), np.float32)
    searches = products_library().count_searches()
    with tape.capturing() as captured, choosing_products(choices):
        gemm(x, x, out, tf32=False)
    assert products_library().count_searches() == searches
    assert not choices.plans
    multiply(choices, x, x)
    before = runs()
    with tape.capturing() as planned, choosing_products(choices):
        gemm(x, x, out, tf32=False)
    assert not ran(before)
    captured.replay()
    assert not ran(before)  # by cuBLAS's own choice
    planned.replay()
    assert ran(before) == {FASTEST: 1}
    np.testing.assert_array_equal(DEVICE.to_host(out), multiply(choices, x, x))


def test_the_stand_in_refuses_to_take_the_time_while_work_is_captured():
    DEVICE.mark()
    with tape.capturing(), pytest.raises(tape.CaptureError, match="an event to take the time by"):
        DEVICE.mark()


def _missing(xp: Any) -> Any:
    raise OSError("libcublasLt.so.13: cannot open shared object file")


def _old(xp: Any) -> Any:
    class Old:
        def __getattr__(self, name: str) -> Any:
            if name == "cublasLtMatmulPreferenceDestroy":
                raise AttributeError(name)
            return getattr(products_library(), name)

    return Old()


@pytest.mark.parametrize("load", [_missing, _old])
def test_without_cublaslt_every_product_is_cublas_own(load: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cublas_lt, "load_library", load)
    choices, x, before = ProductChoices(), on_device(16, 16), runs()
    np.testing.assert_array_equal(multiply(choices, x, x), multiply(None, x, x))
    assert not ran(before)
    assert not choices.algorithms


def test_a_product_for_which_there_is_no_algorithm_is_cublas_own():
    choices, before = ProductChoices(), runs()
    empty = multiply(choices, on_device(3, 0), on_device(0, 5))
    np.testing.assert_array_equal(empty, np.zeros((3, 5)))
    assert not ran(before)
    assert list(choices.plans.values()) == [None]
    assert not choices.algorithms


def test_of_shapes_without_end_only_some_are_told_apart(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ProductChoices, "MOST", 2)
    choices = ProductChoices()
    for rows in range(1, 5):
        multiply(choices, on_device(rows, 4), on_device(4, 4))
    assert len(choices.plans) == 2


def test_plans_leave_nothing_in_the_library_when_they_go():
    gc.collect()  # the plans of other tests
    before = products_library().count_objects()
    choices, x = ProductChoices(), on_device(16, 16)
    multiply(choices, x, x)
    assert products_library().count_objects() == before + 4  # one operation, three layouts
    del choices
    gc.collect()
    assert products_library().count_objects() == before


@pytest.mark.parametrize("function", ["cublasLtMatmul", "cublasLtMatmulAlgoGetHeuristic"])
def test_no_room_is_a_memory_error(function: str, monkeypatch: pytest.MonkeyPatch):
    choices, x = ProductChoices(), on_device(16, 16)
    if function == "cublasLtMatmul":
        multiply(choices, x, x)
        (plan,) = choices.plans.values()
        monkeypatch.setattr(plan, "_multiply", lambda *given: 3)
    else:
        library = cublas_lt.load_library(DEVICE.xp)
        monkeypatch.setattr(library, function, lambda *given: 3, raising=False)
        monkeypatch.setattr(cublas_lt, "load_library", lambda xp: library)
    with pytest.raises(MemoryError, match="Out of memory for cuBLAS"):
        multiply(choices, x, x)
