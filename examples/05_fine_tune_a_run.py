"""Lesson 5: train a model on one text, then fine-tune it on another: it starts with what it knows."""

import tempfile
from pathlib import Path

import tinygrad_chat
from tinygrad_chat.training.events import Evaluated

COLOURS = ["the cat is black", "the dog is brown", "the frog is green", "the crow is black"] * 50
PLACES = ["the frog sat on a log", "the crow sat on a branch", "the cat sat on a dog"] * 50
SHORT = {"layers": 1, "width": 32, "context": 16, "steps": 100, "eval_every": 50}


def train(texts: list[str], out: Path, **settings) -> list[float]:
    """Train on texts; return the validation losses."""
    losses: list[float] = []

    def watch(event: object) -> None:
        if isinstance(event, Evaluated):
            losses.append(event.evaluation.loss)

    tinygrad_chat.train(texts, out=out, watch=watch, **settings)
    return losses


with tempfile.TemporaryDirectory() as folder:
    first = Path(folder) / "first"
    train(COLOURS, first, **SHORT)  # all of the characters of the other text are in this one: the model learns no more
    tuned = train(PLACES, Path(folder) / "tuned", start_from=first, lr=2e-3, steps=50, eval_every=50)
    anew = train(PLACES, Path(folder) / "anew", **{**SHORT, "lr": 2e-3, "steps": 50})

for name, losses in {"fine-tuned": tuned, "from nothing": anew}.items():
    print(f"{name:>12}: validation loss {losses[0]:.2f} before the first step, {losses[-1]:.2f} after 50")

assert tuned[0] < anew[0]
assert tuned[-1] < anew[-1]
