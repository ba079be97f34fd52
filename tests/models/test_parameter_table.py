"""The table against the models that are built from it, and what is built from weights that exist already."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.models.test_size import any_options
from tests.test_catalogue import KERNEL_SETS
from tinygrad_chat import GPT, ModelOptions
from tinygrad_chat.autograd import kernels_of
from tinygrad_chat.errors import CheckpointError
from tinygrad_chat.interchange.nanochat import NAMES
from tinygrad_chat.models.nanochat import NANOCHAT
from tinygrad_chat.models.parameter_table import by_name, parameter_roles, parameter_table
from tinygrad_chat.models.scalar import ScalarModel
from tinygrad_chat.models.weights import draw_weights

OPTIONS = ModelOptions(layers=2, heads=2, width=8, context=6)
UNUSUAL = ModelOptions(**NANOCHAT, layers=3, heads=2, width=8, context=6, head_width=6)
tokens = np.random.default_rng(0).integers(0, 7, (2, 6))

every_engine = pytest.mark.parametrize("engine", [GPT, ScalarModel])


@given(options=any_options(), vocabulary=st.integers(1, 12))
def test_names_shapes_and_order_are_those_of_the_models_parts(options: ModelOptions, vocabulary: int):
    table = [(name, entry.shape) for name, _, entry in by_name(parameter_table(options, vocabulary))]
    model = GPT(vocabulary, options)
    assert [(name, tensor.shape) for name, tensor in model.named_parameters()] == table
    assert list(model.parameters()) == list(ScalarModel(vocabulary, options).parameters())


def test_nothing_of_it_or_of_the_sizes_needs_numpy():
    program = "import sys, tinygrad_chat.models.size; sys.exit('numpy' in sys.modules or 'psutil' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_table_is_as_long_for_a_billion_layers_as_for_one():
    few, many = (parameter_table(dataclasses.replace(UNUSUAL, layers=layers), 7) for layers in (1, 10**9))
    assert [(entry.name, entry.role) for entry in few] == [(entry.name, entry.role) for entry in many]


def test_every_parameter_of_nanochats_has_upstreams_name():
    assert {entry.name for entry in parameter_table(UNUSUAL, 7)} == NAMES.keys()


def test_roles_tell_a_value_gate_from_a_matrix():
    roles = parameter_roles(UNUSUAL, 7)
    assert roles["blocks.2.attention.value_gate.weight"] == "value_gate"
    assert roles["blocks.2.attention.value.weight"] == "matrix"
    assert "blocks.1.attention.value_gate.weight" not in roles


@pytest.mark.parametrize("tied", [True, False])
def test_weights_begin_as_gpt2s_do(tied: bool):
    """Normal, of deviation 0.02; what 2 L branches write to the stream, of 0.02 / sqrt(2 L) (Radford et al., 2019)."""
    options = ModelOptions(layers=8, heads=4, width=64, context=96, bias=True, tied=tied)
    for name, weight in draw_weights(options, 50, np.random.default_rng(0)).items():
        if name.endswith(".gain"):
            assert (weight == 1).all(), name
        elif name.endswith(".bias"):
            assert not weight.any(), name
        else:
            written = name.endswith(("output.weight", "contract.weight"))
            expected = 0.02 / 4 if written else 0.02
            assert weight.std() == pytest.approx(expected, rel=0.06), name
            assert abs(weight.mean()) < 0.06 * expected, name


@every_engine
def test_a_model_of_weights_is_the_one_that_they_were_drawn_for(engine: Any):
    drawn = engine(7, UNUSUAL, random=np.random.default_rng(3))
    weights = draw_weights(UNUSUAL, 7, np.random.default_rng(3))
    shuffled = dict(sorted(weights.items()))
    given_weights = engine(7, UNUSUAL, weights=shuffled)
    np.testing.assert_array_equal(given_weights.next_token_logits(tokens), drawn.next_token_logits(tokens))
    assert list(given_weights.parameters()) == list(drawn.parameters())


@pytest.mark.parametrize("kernels", ["reference", *KERNEL_SETS])
def test_mapped_weights_are_used_where_they_lie_and_sampling_makes_no_gradient(tmp_path: Path, kernels: str):
    weights: dict[str, np.ndarray] = {}
    for name, array in draw_weights(OPTIONS, 7).items():
        np.save(tmp_path / f"{name}.npy", array)
        weights[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
    model = GPT(7, OPTIONS, weights=weights)
    assert isinstance(model, GPT)
    usual = GPT(7, OPTIONS)
    usual.parameters()
    with kernels_of(kernels):
        for call in (GPT.next_token_logits, lambda model, tokens: model.token_losses(tokens, tokens)):
            np.testing.assert_array_equal(call(model, tokens), call(usual, tokens))
    for name, tensor in model.named_parameters():
        assert np.shares_memory(tensor.data, weights[name])
        assert tensor.grad is None


@every_engine
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("final_norm.gain"), r"missing final_norm\.gain, unknown none"),
        (lambda weights: weights.update(more=np.ones(1)), "missing none, unknown more"),
        (lambda weights: weights.update({"final_norm.gain": np.ones(9)}), r"gain is \(9,\), expected \(8,\)"),
    ],
)
def test_weights_of_another_model_are_refused(engine: Any, change: Any, message: str):
    weights = draw_weights(OPTIONS, 7)
    change(weights)
    with pytest.raises(CheckpointError, match=message):
        engine(7, OPTIONS, weights=weights)
