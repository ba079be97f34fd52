"""How far rewards raise the score of a model that was taught sums for a short while, over three seeds.

A small model reads conversations of the tutor about sums until it is about half good at them. From there, once for
each seed, it goes on by `--objective grpo --task sums`. Told are the fractions of held-out sums that it solves before
and after, and the mean reward of each step; which problems it tries and what it answers follow from the seed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import tinygrad_chat
from bench.record import write_result
from tinygrad_chat.cli.display import format_record
from tinygrad_chat.text.conversations import ChatTemplate, Conversation
from tinygrad_chat.text.dataset import Dataset
from tinygrad_chat.text.embedded.arithmetic import Arithmetic
from tinygrad_chat.text.tokenizers import Tokenizer
from tinygrad_chat.text.tokenizers.bpe_training import train_bpe
from tinygrad_chat.training.events import Event, Logged

NAME = "reinforcement"
LESSONS = 20_000
VOCABULARY = 400
MODEL = {"layers": 3, "heads": 4, "width": 96, "context": 96, "positions": "rotary"}
TAUGHT = {"batch_size": 24, "packing": "best-fit", "lr": 3e-3, "eval_every": 1000, "eval_tokens": 2000, "log_every": 50}
TRIED = {"objective": "grpo", "task": "sums", "max_new_tokens": 56, "weight_decay": 0.0, "eval_tokens": 2000}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--taught", type=int, default=600, help="steps on conversations")
    parser.add_argument("--tried", type=int, default=200, help="steps by rewards")
    parser.add_argument("--lr", type=float, default=1e-4, help="learning rate of the latter")
    parser.add_argument("--problems", type=int, default=200, help="held-out sums that are asked")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=1)


def measure(arguments: argparse.Namespace) -> None:
    conversations = list(lessons(LESSONS))
    texts = [message.text for conversation in conversations[:2000] for message in conversation.messages]
    tokenizer = train_bpe(([text] for text in texts), VOCABULARY)
    data = as_dataset(conversations, tokenizer)
    runs = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        taught = {**MODEL, **TAUGHT, "steps": arguments.taught, "threads": arguments.threads}
        tinygrad_chat.train(data, tokenizer=tokenizer, out=folder / "taught", watch=tell, **taught)
        for seed in arguments.seeds:
            runs.append({"seed": seed, **one_seed(folder, data, tokenizer, seed, arguments)})
            print(f"seed {seed}: {runs[-1]['before']:.3f} of held-out sums before, {runs[-1]['after']:.3f} after")
    settings = {name: getattr(arguments, name) for name in ("taught", "tried", "lr", "problems")}
    write_result(NAME, f"python -m bench {NAME}", {**settings, "model": MODEL, "options": TRIED, "runs": runs})


def lessons(count: int) -> list[Conversation]:
    """Return conversations of the tutor: a sum or a problem in words, and often what goes on from it."""
    random = Random("bench reinforcement")
    arithmetic, made = Arithmetic(random), []
    for _ in range(count):
        first = arithmetic.story() if random.random() < 0.25 else arithmetic.sum()
        parts = [first, *([arithmetic.then(first)] if random.random() < 0.4 else [])]
        made.append(Conversation.of(*(said for lesson in parts for said in (lesson.question, lesson.parts))))
    return made


def as_dataset(conversations: list[Conversation], tokenizer: Tokenizer) -> Dataset:
    """Return conversations as documents of tokens."""
    template = ChatTemplate(tokenizer)
    rendered = [template.render(conversation).tokens for conversation in conversations]
    starts = np.cumsum([0, *map(len, rendered[:-1])])
    return Dataset.from_tokens(np.concatenate(rendered), context=MODEL["context"], document_starts=starts)


def one_seed(
    folder: Path, data: Dataset, tokenizer: Tokenizer, seed: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Let the model that was taught try; return its scores before and after, and the mean reward of each step."""
    records: list[dict[str, Any]] = []

    def watch(event: Event) -> None:
        tell(event)
        if isinstance(event, Logged):
            records.append(event.record)

    tried = {"lr": arguments.lr, "steps": arguments.tried, "eval_every": max(arguments.tried // 3, 1)}
    tinygrad_chat.train(
        data,
        tokenizer=tokenizer,
        start_from=folder / "taught",
        out=folder / f"tried-{seed}",
        watch=watch,
        **{**TRIED, **tried, "eval_problems": arguments.problems, "seed": seed, "threads": arguments.threads},
    )
    scores = [record["val_reward"] for record in records if "val_reward" in record]
    rewards = [record["reward"] for record in records if "reward" in record]
    return {"before": scores[0], "after": scores[-1], "scores": scores, "rewards": rewards}


def tell(event: Event) -> None:
    """Print a line of the log."""
    if isinstance(event, Logged):
        print(format_record(event.record), flush=True)
