"""Nothing in a model, an optimiser or the sampler mixes arrays of the host with arrays of a device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.cuda_on_cpu.device import DEVICE, DeviceArray, standing_in
from tinygrad_chat import GPT, Compute, ModelOptions
from tinygrad_chat.inference.generation import generate
from tinygrad_chat.optim import SGD, AdamW, clip_gradient
from tinygrad_chat.training.evaluation import evaluate
from tinygrad_chat.training.step import TrainStep

VARIANTS: list[dict[str, Any]] = [
    {},
    {"positions": "rotary", "norm": "rmsnorm", "activation": "squared_relu", "soft_cap": 5.0},
    {"key_value_heads": 1, "window": 3, "bias": True, "tied": False},
]
random = np.random.default_rng(0)
tokens, targets = random.integers(0, 7, (2, 6)), random.integers(0, 7, (2, 6))


@pytest.fixture(autouse=True)
def device() -> Iterator[None]:
    with standing_in():
        yield


def build(variant: dict[str, Any], backend: Any) -> GPT:
    options = ModelOptions(**{"layers": 2, "heads": 2, "width": 8, "context": 6, **variant})
    return GPT(7, options, compute=Compute.choose(backend), dtype=np.float64)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("kind", [AdamW, SGD])
def test_a_training_step_on_the_device_equals_one_on_the_host(variant: dict[str, Any], kind: Any):
    models = [build(variant, backend) for backend in (DEVICE, "numpy")]
    for model in models:
        loss = model.loss(tokens, targets)
        loss.backward()
        clip_gradient(model.parameters(), 0.1)
        kind(model.parameters()).step(0.1)
    assert isinstance(models[0].parameters().data, DeviceArray)
    device, host = (model.parameters().data for model in models)
    np.testing.assert_allclose(DEVICE.to_host(device), host, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", [AdamW, SGD])
def test_an_update_on_the_device_clips_the_gradient_as_one_on_the_host(kind: Any):
    steps = []
    for backend in (DEVICE, "numpy"):
        model = build({}, backend)
        steps.append(TrainStep(model, kind(model.parameters()), lambda position: 0.1, clip=0.1))
        result = steps[-1]((tokens, targets), 0)
        assert float(result.grad_norm) > 0.1
    device, host = ({**step.model.parameters().state(), **step.optimizer.state()} for step in steps)
    for name, array in host.items():
        np.testing.assert_allclose(device[name], array, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_sampling_and_evaluation_on_the_device_equal_those_on_the_host(variant: dict[str, Any]):
    models = [build(variant, backend) for backend in (DEVICE, "numpy")]
    texts = [list(generate(model, [1, 2], max_new_tokens=12, random=np.random.default_rng(3))) for model in models]
    assert texts[0] == texts[1]
    losses = [evaluate(model, targets.ravel(), np.ones(7, int), batch_size=2).loss for model in models]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_the_stand_in_objects_to_a_mixture():
    with pytest.raises(TypeError, match="met one on the device"):
        _ = DEVICE.xp.asarray(np.ones(3)) + np.ones(3)
    with pytest.raises(TypeError, match="met one on the device"):
        DEVICE.xp.where(DEVICE.xp.asarray([True]), np.ones(1), 0)
