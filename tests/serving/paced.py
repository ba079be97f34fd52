"""`python -m tests.serving.paced PACE serve ...`: tgc with a model that takes PACE seconds for a token.

It says the last digit of its checkpoint's step, again and again, until it is told to stop.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import numpy as np

from tests.cli.chatting import TOKENIZER


class PacedModel:
    """Says one character for ever, a token a time that `pace` takes, and goes on only while it `may_go_on`."""

    context, vocabulary = 4000, TOKENIZER.size

    def __init__(self, character: str, pace: float = 0.0) -> None:
        self.character, self.pace = character, pace
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.is_asked = threading.Event()
        self.tokens_read = 0

    def new_cache(self, batch: int) -> None:
        """It has none."""

    def next_token_logits(self, tokens: Any, cache: Any = None) -> np.ndarray:
        """Logits (B, V) of which one says it all."""
        self.is_asked.set()
        self.may_go_on.wait()
        time.sleep(self.pace)
        self.tokens_read += len(tokens)
        logits = np.zeros((len(tokens), self.vocabulary))
        logits[:, ord(self.character)] = 50.0
        return logits


def main() -> None:
    """Be `tgc` with such a model in each run."""
    from tinygrad_chat.cli import main as tgc
    from tinygrad_chat.inference import load

    pace = float(sys.argv[1])
    load.load_model = lambda saved, **options: PacedModel(str(saved.step % 10), pace)  # type: ignore[assignment]
    tgc(sys.argv[2:])


if __name__ == "__main__":
    main()
