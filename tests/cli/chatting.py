"""A model that says what a test wants, a run that holds it, and a person at a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinygrad_chat.config.files import to_toml
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.runs.state import TrainingState
from tinygrad_chat.text.conversations import Conversation
from tinygrad_chat.text.tokenizers.bpe import BPETokenizer

TOKENIZER = BPETokenizer.from_merges([])  # each byte is a token
CONTEXT = 400
CALL = "<|python_start|>347*28<|python_end|><|output_start|>9716<|output_end|>It is 9716."


class ScriptedModel:
    """Answers each question as a script says, in which names of special tokens are such."""

    context = CONTEXT

    def __init__(self, script: Mapping[str, str]) -> None:
        self._script = script
        self.tokenizer = TOKENIZER
        self.seen: list[str] = []
        """What was shown to it, with the names of special tokens."""
        self.controls: list[list[str]] = []
        """The special tokens among that, without those that somebody has typed."""

    def stand_in(self, patch: pytest.MonkeyPatch) -> None:
        """Be the model of every run that is opened."""

        def load(saved: Any, **options: Any) -> ScriptedModel:
            self.tokenizer = saved.tokenizer
            return self

        patch.setattr("tinygrad_chat.inference.load.load_model", load)
        patch.setattr("tinygrad_chat.cli.chat.TEMPERATURE", 0)

    @property
    def vocabulary(self) -> int:
        """How many tokens it knows."""
        return self.tokenizer.size

    def new_cache(self, batch: int) -> None:
        """It has none."""

    def next_token_logits(self, tokens: Any, cache: Any = None) -> np.ndarray:
        """Logits of the script's next token, with an alternative that has an eighth of its probability."""
        return np.array([self._logits(list(row)) for row in np.asarray(tokens)])

    def _logits(self, row: list[int]) -> np.ndarray:
        special = self.tokenizer.special_tokens
        start = len(row) - row[::-1].index(special["<|assistant_start|>"])
        begin = len(row) - row[::-1].index(special["<|user_start|>"])
        asked = self.tokenizer.decode(row[begin : row.index(special["<|user_end|>"], begin)]).rpartition("\n\n")[2]
        if len(row) == start:
            names = {number: name for name, number in special.items()}
            self.controls.append([names[token] for token in row if token in names])
            self.seen.append("".join(names.get(token) or self.tokenizer.decode([token]) for token in row))
        answer = self.tokenizer.encode(self._script.get(asked, "?"), special=[*special]).tolist()
        answer.append(special["<|assistant_end|>"])
        logits = np.zeros(self.vocabulary)
        logits[answer[len(row) - start]] = 20.0
        logits[self.tokenizer.encode("z")[0]] += 20.0 - np.log(8)
        return logits


def save_run(path: Path, *, conversations: bool = True, finished: bool = True, **settings: Any) -> RunFolder:
    """Write a run whose model cannot be asked: a test has another one loaded instead."""
    run = RunFolder(path)
    config = TrainingConfig.of(tokenizer="bpe", steps=9, **settings)
    run.create()
    run.write_config(config)
    TrainingState(
        config=config,
        tokenizer=TOKENIZER,
        weights={"a": np.zeros((2, 2), np.float32)},
        optimizer={"mean": np.ones(6, np.float32)},
        data={"source": "chats.jsonl", "sha256": "0", **({"trained_tokens": 9} if conversations else {})},
    ).save(run.checkpoints)
    run.write_outcome("finished" if finished else "interrupted", step=0, seconds=1.0)
    return run


Line = str | type[BaseException] | Callable[[], str]


def sit_at_terminal(patch: pytest.MonkeyPatch, lines: Sequence[Line]) -> list[str]:
    """Have a person there who writes these lines, or presses what raises these exceptions, and then Ctrl-D.

    Return the prompts that they see.
    """
    coming: Iterator[Line] = iter(lines)
    prompts: list[str] = []

    def read(prompt: str = "") -> str:
        prompts.append(prompt)
        line = next(coming, EOFError)
        if isinstance(line, type):
            raise line()
        return line if isinstance(line, str) else line()

    patch.setattr("builtins.input", read)
    patch.setattr("tinygrad_chat.cli.chat._is_terminal", lambda: True)
    patch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    return prompts


def write_presets(patch: pytest.MonkeyPatch, folder: Path, **settings: Any) -> None:
    """Let our own models be tiny ones, of as many layers as their size says."""
    folder.mkdir()
    chats = (Conversation.of(f"{number}?", f"It is {number}.").to_json() for number in range(100))
    (folder.parent / "chats.jsonl").write_text("".join(f"{json.dumps(chat)}\n" for chat in chats))
    tiny = {"data": str(folder.parent / "chats.jsonl"), "tokenizer": "bpe", "vocabulary": 266, "model": "mini-gpt"}
    tiny |= {"width": 8, "heads": 2, "context": 64, "batch_size": 2, "steps": 6, "log_every": 1, "eval_every": 3}
    for layers, name in enumerate(("chat-small", "chat", "chat-standard", "chat-portable"), start=1):
        (folder / f"{name}.toml").write_text(to_toml({**tiny, **settings, "layers": layers}))
    patch.setattr("tinygrad_chat.config.files.PRESETS", folder)
