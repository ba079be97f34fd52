"""TensorBoard, by tensorboardX."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Mapping

from tinygrad_chat.formatting import quoted
from tinygrad_chat.tracking.tracker import RevisableTracker
from tinygrad_chat.training.run import Run


class TensorBoard(RevisableTracker):
    """Event files in the run's folder, which TensorBoard reads. A resumed run hides the steps that it repeats."""

    library = "tensorboardX"

    def __init__(self, run: Run, identity: str | None) -> None:
        self._folder = run.folder.path / "tensorboard"
        self._open(run.progress.step if identity else None)
        self.identity = self._folder.name
        viewer = "" if shutil.which("tensorboard") else " (after: pip install tensorboard)"
        self.how_to_look = f"tensorboard --logdir {quoted(self._folder)}{viewer}"
        if not identity:
            lines = [f"    {name} = {value}" for name, value in run.config.used_settings().items()]
            self._writer.add_text("settings", "\n".join(lines), 0)

    def _open(self, purge_step: int | None) -> None:
        suffix = "" if purge_step is None else f".from-{purge_step:06d}"  # names alone are unique only per second
        writer = importlib.import_module(self.library).SummaryWriter
        self._writer = writer(str(self._folder), purge_step=purge_step, flush_secs=10, filename_suffix=suffix)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send each number as a separate scalar."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def show_text(self, step: int, text: str) -> None:
        """Send the text as an indented block, which Markdown shows verbatim."""
        self._writer.add_text("sample", "".join(f"    {line}\n" for line in text.splitlines()), step)

    def take_back(self, step: int) -> None:
        """Start a new event file, which hides the earlier ones from `step` on."""
        self._writer.close()
        self._open(step)

    def close(self, *, failed: bool) -> None:
        """Write what is still pending."""
        self._writer.close()
