"""Muon, its AdamW groups and its schedules against nanochat's own, from the same weights and gradients."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from bench.peers import nanochat
from tests.upstream import NANOCHAT_DIR, needs_upstream, upstream_module
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.nn import Module
from tinygrad_chat.optim import SCHEDULES, Group, Muon, adamw_groups
from tinygrad_chat.optim.schedule import cosine_decay, muon_momentum
from tinygrad_chat.tensor import Tensor

pytestmark = [pytest.mark.upstream, needs_upstream]

STEPS = 3
RATE, MOMENTUM, DECAY = 0.02, 0.95, 0.2  # upstream's own momentum before any schedule
MATRICES = [(2, 12), (64, 256), (256, 64), (64, 64)]
SHAPES = {
    "token_embedding.weight": (64, 8),
    "value_embeddings.1": (64, 8),
    "head.weight": (64, 8),
    "smear_gate.weight": (1, 24),
    "residual_scales": (4,),
    "embedding_scales": (4,),
    "smear_scale": (1,),
    "backout_scale": (1,),
}
ROLES = {
    "token_embedding.weight": "embedding",
    "value_embeddings.1": "value_embedding",
    "head.weight": "head",
    "smear_gate.weight": "smear_gate",
    "residual_scales": "residual_scale",
    "embedding_scales": "embedding_scale",
    "smear_scale": "smear_scale",
    "backout_scale": "backout_scale",
}


class Holder(Module):
    """Parameters of given names and shapes, drawn; the dots of their names are no matter."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        random = np.random.default_rng(3)
        for name, shape in shapes.items():
            setattr(self, name, Tensor(random.normal(0, 0.1, shape).astype(np.float32)))


def gradients(shapes: dict[str, tuple[int, ...]]) -> list[dict[str, np.ndarray]]:
    """Three of every parameter. Some elements are 0, and some of the size of Adam's epsilon."""
    random = np.random.default_rng(4)
    sizes = np.array([1e-2, 0, 1e-10])

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        return (random.choice(sizes, shape) * random.normal(size=shape)).astype(np.float32)

    return [{name: draw(shape) for name, shape in shapes.items()} for _ in range(STEPS)]


def ours(shapes: dict[str, tuple[int, ...]], groups: list[Group]) -> list[dict[str, np.ndarray]]:
    """Every parameter before the first step and after each."""
    parameters = Holder(shapes).parameters()
    optimizer = Muon(parameters, groups, momentum=lambda step: MOMENTUM, weight_decay=lambda step: DECAY)
    states = [parameters.state()]
    for each in gradients(shapes):
        parameters.gradient[:] = np.concatenate([each[name].ravel() for name in parameters])
        optimizer.step(RATE)
        states.append(parameters.state())
    return states


def theirs(shapes: dict[str, tuple[int, ...]], groups: list[dict[str, Any]]) -> list[dict[str, np.ndarray]]:
    """The same in upstream's optimiser; its groups name their parameters."""
    import torch

    start = Holder(shapes).parameters().state()
    tensors = {name: torch.nn.Parameter(torch.tensor(array)) for name, array in start.items()}
    optimizer = upstream_module("nanochat.optim").MuonAdamW(
        [{**group, "params": [tensors[name] for name in group["params"]]} for group in groups]
    )
    states = [start]
    for each in gradients(shapes):
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(each[name])
        optimizer.step()
        states.append({name: tensor.detach().numpy().copy() for name, tensor in tensors.items()})
    return states


NAMES = ["head", "embedding", "value embeddings", "residual scales", "embedding scales", "smear"]


@functools.cache
def upstream_groups() -> list[dict[str, Any]]:
    """What upstream sets its optimiser up with for a model 768 wide, where widths scale nothing."""
    import torch

    gpt = upstream_module("nanochat.gpt")
    with torch.device("meta"):
        model = gpt.GPT(gpt.GPTConfig(64, 64, n_layer=2, n_head=6, n_kv_head=6, n_embd=768))
    rates = {"unembedding_lr": 0.008, "embedding_lr": 0.3, "scalar_lr": 0.5, "matrix_lr": RATE}
    return model.setup_optimizer(weight_decay=DECAY, **rates).param_groups


def test_upstream_has_our_groups_in_our_order():
    kinds = [group["kind"] for group in upstream_groups()]
    assert kinds[: len(NAMES)] == ["adamw"] * len(NAMES)
    assert set(kinds[len(NAMES) :]) == {"muon"}
    assert [group.name for group in adamw_groups(ROLES, lr=1, embedding_lr=1, head_lr=1, scalar_lr=1)] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_three_steps_of_each_adamw_group_are_upstreams(name: str):
    groups = adamw_groups(ROLES, lr=RATE, embedding_lr=0.3, head_lr=0.008, scalar_lr=0.5)
    (group,) = [each for each in groups if each.name == name]
    shapes = {each: SHAPES[each] for each in group.parameters}
    same = upstream_groups()[NAMES.index(name)] | {"params": list(shapes)}
    for mine, reference in zip(ours(shapes, [group]), theirs(shapes, [same]), strict=True):
        for each in shapes:
            np.testing.assert_allclose(mine[each], reference[each], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", MATRICES, ids=str)
def test_three_steps_of_muon_are_upstreams(shape: tuple[int, int]):
    shapes = {"blocks.0.weight": shape, "blocks.1.weight": shape}
    same = upstream_groups()[-1] | {"params": list(shapes)}
    pairs = zip(ours(shapes, []), theirs(shapes, [same]), strict=True)
    before = None
    for mine, reference in pairs:
        for name in shapes:
            if shape[0] != shape[1]:
                np.testing.assert_allclose(mine[name], reference[name], rtol=1e-6, atol=1e-6)
            elif before is not None:  # ill-conditioned: rounding grows with the small singular values
                update = np.linalg.norm(reference[name] - before[name])
                assert np.linalg.norm(mine[name] - reference[name]) < 1e-3 * update
        before = reference


@pytest.mark.parametrize(("steps", "warmup", "warmdown"), [(50, 5, 0.65), (50, 40, 0.65), (1000, 40, 0.4), (7, 0, 1.0)])
def test_every_step_of_the_schedules_is_upstreams(steps: int, warmup: int, warmdown: float):
    chosen = {"steps": steps, "warmup": warmup, "warmdown": warmdown, "lr": RATE, "min_lr": 0.05 * RATE}
    config = TrainingConfig.of(**chosen, model="nanochat", weight_decay=DECAY)
    share, momentum, decay = nanochat.schedules(NANOCHAT_DIR, config)
    rate = SCHEDULES["nanochat"](peak=1.0, minimum=0.05, warmup=warmup, steps=steps, warmdown=warmdown)
    of_matrices = muon_momentum(steps=steps, warmdown=warmdown), cosine_decay(peak=DECAY, steps=steps)
    for mine, reference in zip((rate, *of_matrices), (share, momentum, decay), strict=True):
        assert [mine(step) for step in range(steps)] == pytest.approx(list(map(reference, range(steps))), rel=1e-12)
