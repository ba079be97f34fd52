"""An op gives what it gives, however its arrays lie in memory: inputs, arrays among the options, upstream gradients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.catalogue import CATALOGUE, Case, Entry
from tests.kernels.test_cuda import CORNERS
from tests.layouts import EXAMPLES, Layout, anywhere, lay_out_case
from tests.test_catalogue import KERNEL_SETS, KERNEL_TOLERANCE, as_float32, draw_d_out, value_and_gradients
from tinygrad_chat import Tensor
from tinygrad_chat.autograd import kernels_of, reference_ops
from tinygrad_chat.backend import load_kernels
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.models.gpt import GPT
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.models.weights import draw_weights
from tinygrad_chat.nn import Parameters
from tinygrad_chat.training.build import build_optimizer

every_set = pytest.mark.parametrize("kernel_set", ["reference", *KERNEL_SETS])


def expect_the_same(entry: Entry, case: Case, kernel_set: str, layouts: list[Layout]) -> None:
    """Check value and gradients of a case that lies in the layouts against the reference on the case as it is."""
    case = as_float32(case)
    with np.errstate(all="ignore"):
        d_out = draw_d_out(entry, case).astype(np.float32)
        with reference_ops():
            expected = value_and_gradients(entry, case, d_out)
        there = lay_out_case(case, layouts)
        with kernels_of(kernel_set):
            found = value_and_gradients(entry, there, layouts[-1].lay_out(d_out))
    for mine, reference in zip(found, expected, strict=True):
        assert mine.dtype == np.float32
        scale = max(1.0, float(np.max(np.abs(reference), initial=0.0)))
        np.testing.assert_allclose(mine, reference, rtol=0, atol=KERNEL_TOLERANCE * scale)
    for x, before in zip(there.inputs, case.inputs, strict=True):
        np.testing.assert_array_equal(x, before)


@every_set
@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=CATALOGUE.keys())
@given(st.data())
def test_every_op_takes_arrays_as_they_lie(entry: Entry, kernel_set: str, data: st.DataObject):
    case = data.draw(entry.cases)
    expect_the_same(entry, case, kernel_set, data.draw(st.lists(anywhere, min_size=1, max_size=4)))


@pytest.mark.profile("ci")
@pytest.mark.parametrize("layout", EXAMPLES)
@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
def test_kernels_do_where_their_arrays_are_larger_than_the_catalogues(kernel_set: str, layout: str):
    for name, case in CORNERS.values():
        if CATALOGUE[name].op in load_kernels(kernel_set):
            expect_the_same(CATALOGUE[name], case, kernel_set, [EXAMPLES[layout]])


@pytest.mark.parametrize("layout", EXAMPLES.values(), ids=EXAMPLES.keys())
class TestWhatTakesArraysIn:
    """Tensors, constants beside them, parameters, optimisers and models."""

    def test_a_tensor_and_what_is_computed_from_it_are_in_native_byte_order(self, layout: Layout):
        x = layout.lay_out(np.arange(6.0).reshape(2, 3))
        for result in (Tensor(x), Tensor(x)[:, 1:], Tensor(np.zeros((2, 3))) + x, x * Tensor(np.ones(3))):
            assert result.dtype.isnative
        np.testing.assert_array_equal((Tensor(np.zeros((2, 3))) + x).data, x)

    def test_a_gradient_that_was_there_goes_on(self, layout: Layout):
        weight, gradient = np.arange(6.0).reshape(2, 3), np.ones((2, 3))
        for gather in (False, True):
            leaf = Tensor(layout.lay_out(weight))
            leaf.accumulate(layout.lay_out(gradient))
            if gather:
                parameters = Parameters({"weight": leaf})
                np.testing.assert_array_equal(parameters.gradient, gradient.ravel())
            (leaf * leaf).sum().backward()
            np.testing.assert_array_equal(leaf.grad, gradient + 2 * weight)
            assert leaf.grad.flags.c_contiguous

    def test_parameters_are_gathered_and_loaded(self, layout: Layout):
        weight = np.arange(6, dtype=np.float32).reshape(2, 3)
        parameters = Parameters({"weight": Tensor(layout.lay_out(weight))})
        np.testing.assert_array_equal(parameters.data, weight.ravel())
        parameters.load({"weight": layout.lay_out(-weight)})
        np.testing.assert_array_equal(parameters.state()["weight"], -weight)

    @pytest.mark.parametrize("name", ["adamw", "muon", "sgd"])
    def test_an_optimiser_goes_on(self, layout: Layout, name: str):
        def trained(laid_out: bool) -> np.ndarray:
            config = TrainingConfig.of(optimizer=name, layers=1, width=8, heads=1, context=4)
            model = GPT(11, config.model)
            optimizer = build_optimizer(config, model)
            model.parameters().gradient[:] = np.linspace(-1, 1, model.parameters().size)
            optimizer.step(1e-2)
            state = optimizer.state()
            optimizer.load({key: layout.lay_out(array) if laid_out else array for key, array in state.items()})
            optimizer.step(1e-2)
            return model.parameters().data

        np.testing.assert_array_equal(trained(True), trained(False))

    def test_a_model_is_made_of_weights_as_they_lie(self, layout: Layout):
        options = ModelOptions(layers=1, width=8, heads=2, context=4)
        tokens, weights = np.array([[1, 2, 0]]), draw_weights(options, 5)
        there = {name: layout.lay_out(array) for name, array in weights.items()}
        found, expected = (GPT(5, options, weights=each).logits(tokens) for each in (there, weights))
        np.testing.assert_allclose(found.data, expected.data, rtol=1e-5, atol=1e-6)
