"""A weight too large for its kind of number, in each parameter in turn: the op and the layer that are named."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pytest

from tinygrad_chat.errors import DivergedError
from tinygrad_chat.runs.checkpoint import find_checkpoints
from tinygrad_chat.training import loop
from tinygrad_chat.training.events import Stepped
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run
from tinygrad_chat.training.update import update

Start = Callable[..., Run]

MODELS = {"mini-gpt": {"layers": 1, "heads": 2, "width": 8}, "nanochat": {"layers": 2, "heads": 2, "width": 16}}

COMPILED = find_spec("numba") is not None
HARMLESS = None
LENGTH = "which overflows though every gradient is finite; the largest is that of {}"
EXPAND = "blocks.{}.feed_forward.expand"

# What is said of a weight, by its name up to `.weight`. Not in the table: its own product is the first.
PLACES: dict[tuple[str, str, float], dict[str, str | None]] = {
    ("mini-gpt", "tensor", 3e38): {
        # Its sum overflows; NumPy's kernel adds up what is divided already.
        "position_embedding": "first in the result of layernorm of blocks.0.attention_norm" if COMPILED else HARMLESS,
        "blocks.0.attention.output": HARMLESS,
        "blocks.0.feed_forward.contract": HARMLESS,
        "blocks.0.attention_norm.gain": "first in the result of layernorm of blocks.0.attention_norm",
        "blocks.0.feed_forward_norm.gain": "first in the result of layernorm of blocks.0.feed_forward_norm",
        "final_norm.gain": "first in the result of layernorm of final_norm",
    },
    ("mini-gpt", "scalar", 1.7e308): {
        "position_embedding": "first in the result of mean after token_embedding and position_embedding",
        "blocks.0.attention.output": HARMLESS,
        "blocks.0.feed_forward.contract": HARMLESS,
        "blocks.0.attention_norm.gain": "first in the result of multiplication of blocks.0.attention_norm",
        "blocks.0.feed_forward_norm.gain": "first in the result of multiplication of blocks.0.feed_forward_norm",
        "final_norm.gain": "first in the result of multiplication of final_norm",
    },
    ("mini-gpt", "scalar", 1e300): {
        "token_embedding": LENGTH.format("final_norm.gain"),
        "position_embedding": HARMLESS,
        "blocks.0.attention.query": LENGTH.format("blocks.0.attention_norm.gain"),
        "blocks.0.attention.key": HARMLESS,
        "blocks.0.attention.value": HARMLESS,
        "blocks.0.attention.output": HARMLESS,
        "blocks.0.feed_forward.expand": f"first in the gradient from gelu after {EXPAND.format(0)}",
        "blocks.0.feed_forward.contract": HARMLESS,
        "blocks.0.attention_norm.gain": "first in the result of matrix_vector after blocks.0.attention.value",
        "blocks.0.feed_forward_norm.gain": f"first in the gradient from gelu after {EXPAND.format(0)}",
        "final_norm.gain": LENGTH.format("token_embedding.weight"),
    },
    ("nanochat", "tensor", 3e38): {
        "token_embedding": HARMLESS,
        "blocks.1.attention.value_gate": HARMLESS,
        "head": HARMLESS,
        "value_embeddings.1": HARMLESS,
        "smear_gate": "first in the result of smear of smear_gate and smear_scale",
        "smear_scale": "first in the result of smear of smear_gate and smear_scale",
        "residual_scales": "first in the result of scaled_sum of embedding_scales and residual_scales",
        "embedding_scales": "first in the result of scaled_sum of embedding_scales and residual_scales",
        "backout_scale": "first in the result of scaled_sum of backout_scale",
    },
    ("nanochat", "scalar", 1.7e308): {
        "token_embedding": HARMLESS,
        "value_embeddings.1": HARMLESS,
        "smear_scale": "first in the result of multiplication after smear_scale",
        "residual_scales": "first in the result of multiplication of residual_scales",
        "embedding_scales": "first in the result of multiplication of embedding_scales",
        "backout_scale": "first in the result of multiplication after backout_scale",
    },
}


@pytest.fixture
def tiny_run(start: Start) -> Callable[[str, str], Run]:
    def make(model: str, mode: str) -> Run:
        return start(model=model, mode=mode, **MODELS[model], batch_size=1, context=4, eval_tokens=5)

    return make


@contextmanager
def planted(run: Run, name: str, value: float) -> Iterator[None]:
    """Within this context the first row of a parameter is `value`."""
    parameters = run.model.parameters()
    before = parameters.data.copy()
    parameters[name].data[0] = value
    yield
    parameters.data[...] = before
    run.progress.step = 0


def finding(work: Callable[[], object]) -> str | None:
    """Return where something became NaN or infinite, as it is said after what became so."""
    try:
        work()
    except DivergedError as error:
        return re.sub("^step 0: .*?, ", "", error.finding)
    return None


def expected(model: str, mode: str, value: float, name: str) -> str | None:
    layer, product = name.removesuffix(".weight"), {"tensor": "linear", "scalar": "matrix_vector"}[mode]
    return PLACES[model, mode, value].get(layer, f"first in the result of {product} of {layer}")


@pytest.mark.profile("ci")
@pytest.mark.parametrize(("model", "mode", "value"), PLACES)
def test_a_step_names_where_a_weight_overflows(
    tiny_run: Callable[[str, str], Run], model: str, mode: str, value: float
):
    run, said = tiny_run(model, mode), {}
    for name in run.model.parameters():
        with planted(run, name, value):
            said[name] = finding(lambda: update(run, 0.0))
    assert said == {name: expected(model, mode, value, name) for name in said}


@pytest.mark.profile("ci")
@pytest.mark.parametrize(("model", "mode", "value"), [each for each in PLACES if each[2] != 1e300])
def test_an_evaluation_names_the_same_place(tiny_run: Callable[[str, str], Run], model: str, mode: str, value: float):
    run = tiny_run(model, mode)
    for name in run.model.parameters():
        with planted(run, name, value):
            in_a_step = finding(lambda: update(run, 0.0))
            run.progress.step = 0
            assert in_a_step is None or finding(lambda: loop._evaluate(run)) == in_a_step


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("head.weight", "linear after head"),
        ("blocks.1.attention.value_gate.weight", "linear of blocks.1.attention.value_gate"),
    ],
)
def test_a_sample_that_fails_first_names_step_and_place_and_takes_the_checkpoint_away(
    start: Start, name: str, place: str
):
    """The soft cap and the gate's sigmoid bend infinity to a number: only the sample meets infinities of both signs."""
    run = start(model="nanochat", **MODELS["nanochat"], batch_size=1, context=4, eval_tokens=5)

    def train_until_it_fails() -> None:
        for event in train(run):
            if isinstance(event, Stepped) and event.step == 3:
                run.model.parameters()[name].data[0] = 3e38

    with pytest.raises(
        DivergedError, match=f"^step 3: the logits of the sample are NaN or infinite, first in the result of {place}"
    ):
        train_until_it_fails()
    assert [path.name for path in find_checkpoints(run.folder.checkpoints)] == ["step-000000"]


def test_a_gradient_that_is_too_large_a_sum_is_named(tiny_run: Callable[[str, str], Run], monkeypatch: Any):
    run = tiny_run("mini-gpt", "tensor")
    parameters = run.model.parameters()
    monkeypatch.setattr(
        run.train_step, "gradient", lambda *_, **__: parameters["final_norm.gain"].grad.fill(float("inf")) or 1.0
    )
    assert finding(lambda: update(run, 0.0)) == (
        "first in the gradient of final_norm.gain, a sum of finite parts that overflows"
    )
