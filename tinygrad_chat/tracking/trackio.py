"""Trackio."""

from __future__ import annotations

import contextlib
import importlib
import io
import secrets
from collections.abc import Mapping

from tinygrad_chat.files import real_path
from tinygrad_chat.tracking.tracker import PROJECT, Tracker
from tinygrad_chat.training.run import Run


class Trackio(Tracker):
    """Trackio: https://huggingface.co/docs/trackio. Local, or in the space that TRACKIO_SPACE_ID names."""

    library = "trackio"

    def __init__(self, run: Run, identity: str | None) -> None:
        trackio = self._trackio = importlib.import_module(self.library)
        self.identity = identity or f"{real_path(run.folder.path).name}-{secrets.token_hex(4)}"  # it knows runs by name
        with contextlib.redirect_stdout(io.StringIO()):  # keep its messages off the terminal
            self._run = trackio.init(
                project=PROJECT, name=self.identity, config=run.config.used_settings(), resume="allow", embed=False
            )
        self.how_to_look = f"trackio show --project {PROJECT}"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the numbers as one row."""
        self._run.log(dict(values), step=step)

    def show_text(self, step: int, text: str) -> None:
        """Send the text as Markdown that preserves its lines."""
        block = "".join(f"    {line}\n" for line in text.splitlines())
        self._run.log({"sample": self._trackio.Markdown(block)}, step=step)

    def close(self, *, failed: bool) -> None:
        """Send what is still pending."""
        with contextlib.redirect_stdout(io.StringIO()):
            self._trackio.finish()  # the run's own `finish` leaves trackio open, and it prints when the process ends
