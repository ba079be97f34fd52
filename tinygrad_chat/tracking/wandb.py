"""Weights & Biases."""

from __future__ import annotations

import html
import importlib
import secrets
from collections.abc import Mapping

from tinygrad_chat.files import real_path
from tinygrad_chat.formatting import quoted
from tinygrad_chat.tracking.tracker import PROJECT, Tracker
from tinygrad_chat.training.run import Run


class WeightsAndBiases(Tracker):
    """Weights & Biases: https://docs.wandb.ai. Offline if WANDB_MODE says so."""

    library = "wandb"

    def __init__(self, run: Run, identity: str | None) -> None:
        wandb = self._wandb = importlib.import_module(self.library)
        self.identity = identity or secrets.token_hex(4)
        self._run = wandb.init(
            project=PROJECT,
            name=real_path(run.folder.path).name,
            config=run.config.used_settings(),
            dir=str(run.folder.path),
            id=self.identity,
            resume="allow",
            settings=wandb.Settings(console="off", silent=True),  # keep its messages off the terminal
        )
        self.last_step = self._run.starting_step - 1
        self.how_to_look = f"wandb sync {quoted(self._run.settings.sync_dir)}" if self._run.offline else self._run.url

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the numbers as one row."""
        self._run.log(dict(values), step=step)

    def show_text(self, step: int, text: str) -> None:
        """Send the text as HTML that preserves its lines."""
        page = self._wandb.Html(f"<pre>{html.escape(text)}</pre>", inject=False)
        self._run.log({"sample": page}, step=step)

    def close(self, *, failed: bool) -> None:
        """Send what is still pending, however long that takes."""
        self._run.finish(exit_code=int(failed))
