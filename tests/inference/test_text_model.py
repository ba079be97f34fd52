"""A model with its tokenizer: what it writes after a prompt, and what it may be asked."""

from __future__ import annotations

import numpy as np
import pytest

from tests.models.table_model import certain, table_model
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.errors import UsageError
from tinygrad_chat.inference.text_model import TextModel
from tinygrad_chat.text.tokenizers import CharacterTokenizer


@pytest.fixture
def model() -> TextModel:
    """After BOS comes a, then b, c, and the end."""
    tokenizer = CharacterTokenizer("abc")
    following = {tokenizer.bos: 0, 0: 1, 1: 2, 2: tokenizer.bos}
    return TextModel(table_model(certain(4, following)), tokenizer, TrainingConfig())


def test_the_text_is_what_follows_the_prompt_without_it(model: TextModel):
    assert "".join(model.generate()) == "abc"
    assert "".join(model.generate("ab")) == "c"


def test_logits_are_of_a_text_or_of_tokens_that_the_model_knows(model: TextModel):
    np.testing.assert_array_equal(model.logits("abc"), model.logits([0, 1, 2]))
    assert model.logits("abc").argmax(axis=-1).tolist() == [1, 2, 3]
    assert model.logits([3]).shape == (1, 4)
    with pytest.raises(UsageError, match=r"logits: expected tokens from 0 to 3, received 4 to 4"):
        model.logits([4])
