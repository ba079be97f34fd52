"""Lesson 8: a task of your own, for `tgc eval RUN --task examples/08_a_task_of_your_own.py` or from Python."""

import tempfile
from collections.abc import Iterator

import tinygrad_chat
from tinygrad_chat.tasks import Problem
from tinygrad_chat.text.conversations import Conversation

WORDS = ["stone", "river", "lamp", "window"]


class Backwards:
    """Write a word backwards: the question, a right answer for people, and a check of the model's."""

    name, about, chance = "backwards", "write a word backwards", 0.0

    def problems(self, count: int, seed: int) -> Iterator[Problem]:
        """Yield as many problems as are asked for, the same ones for the same seed."""
        for number in range(count):
            word = WORDS[(seed + number) % len(WORDS)]
            right = word[::-1]
            yield Problem(Conversation.of(f"Write {word} backwards."), right, lambda said, right=right: right in said)


if __name__ == "__main__":
    chats = {"tokenizer": "bpe", "vocabulary": 300, "context": 64}  # these tokens have those of chats among them
    with tempfile.TemporaryDirectory() as folder:
        texts = [f"{word} {word[::-1]} {number}" for word in WORDS for number in range(200)]
        model = tinygrad_chat.train(texts, out=f"{folder}/run", layers=1, width=16, steps=20, **chats)
        result = tinygrad_chat.evaluate(model, Backwards(), count=8)
    print(f"solved {result.accuracy:.0%} ± {result.error:.0%} of {result.count}, for example:")
    print(f"  asked {result.examples[0].question!r}, answered {result.examples[0].answer!r:.40}")
    assert result.count == 8
