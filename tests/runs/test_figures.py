"""A model's own figures are true, and its calculator knows each that it may ask for."""

import numpy as np

from tinygrad_chat.config.resolve import resolve
from tinygrad_chat.models.engines import ENGINES
from tinygrad_chat.runs.figures import facts_of
from tinygrad_chat.runs.recent_losses import RecentLosses
from tinygrad_chat.runs.state import Progress, SavedModel
from tinygrad_chat.text.embedded.itself import PLAUSIBLE
from tinygrad_chat.text.tokenizers import CharacterTokenizer
from tinygrad_chat.tools.calculator import calculate

TOKENIZER = CharacterTokenizer("abcdefg")


def saved(**progress) -> SavedModel:
    config = resolve({"layers": 2, "heads": 2, "width": 16, "context": 8, "batch_size": 3})
    return SavedModel(progress=Progress(**progress), config=config, tokenizer=TOKENIZER, weights={})


def test_facts_are_those_of_the_model():
    model = saved(step=40, seconds=90.0, best_step=30, best_loss=1.2345)
    facts = facts_of(model)
    made = ENGINES["tensor"](TOKENIZER.size, model.config.model, random=np.random.default_rng(0))
    assert facts["parameters"] == made.parameters().size
    assert facts | {"parameters": 0} == {
        "layers": 2, "heads": 2, "width": 16, "context": 8, "vocabulary": 8, "steps": 40,
        "tokens": 40 * 3 * 8, "minutes": 1.5, "loss": 1.23, "parameters": 0,
    }  # fmt: skip


def test_without_an_evaluation_the_loss_is_that_of_the_last_batches():
    assert facts_of(saved(step=1, recent_losses=RecentLosses(count=1, mean=2.5)))["loss"] == 2.5
    assert "loss" not in facts_of(saved())


def test_the_calculator_answers_each_name_that_the_model_learns_to_ask():
    facts = facts_of(saved(step=40, seconds=90.0, best_step=30, best_loss=1.5))
    assert facts.keys() == PLAUSIBLE.keys()
    assert {name: calculate(name, facts) for name in ("steps", "minutes", "loss")} == {
        "steps": "40", "minutes": "1.5", "loss": "1.5",
    }  # fmt: skip
