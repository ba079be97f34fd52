"""What can be done next with a run: chat with it or sample from it, continue it, or train the same again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tinygrad_chat.config.groups import OWN
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.formatting import quoted
from tinygrad_chat.reports.summary import RunSummary
from tinygrad_chat.runs.checkpoint import step_of
from tinygrad_chat.runs.folder import RunFolder


def commands_of(
    summary: RunSummary,
    config: TrainingConfig | None,
    checkpoints: Sequence[Path],
    best_checkpoint: str,
    *,
    chats: bool,
) -> list[tuple[str, str]]:
    """Return what can be done with a run, in words and as a command, the most likely first.

    `best_checkpoint` is empty if none is on disk; `chats` says whether the model was taught to chat.
    """
    folder = RunFolder(summary.path)
    if config and config.recipe.model == OWN:
        return []  # the user's own model is opened in Python
    found: list[tuple[str, str]] = []
    use, command = ("talk to", "tgc chat") if chats else ("write text with", "tgc sample")
    if best_checkpoint and not _is_untrained(summary, config, checkpoints):
        words = f"{use} the best checkpoint, of step {summary.best_step:,}"
        found.append((words, f"{command} --checkpoint {quoted(best_checkpoint)}"))
    elif checkpoints:
        found.append((f"{use} the newest checkpoint", f"{command} --checkpoint {quoted(folder.path)}"))
    if summary.outcome == "imported":  # there is no training to continue or repeat
        return [*found, ("fine-tune the model on a text", f"tgc train --from {quoted(folder.path)} --data TEXT")]
    if checkpoints and config:
        further = " --on-nan rollback" if (summary.outcome, config.guards.on_nan) == ("failed", "stop") else ""
        if summary.outcome == "finished":
            by_time = config.schedule.minutes is not None and summary.step != summary.steps
            further = (
                f" --minutes {2 * (config.schedule.minutes or 0):g}"
                if by_time
                else f" --steps {2 * config.schedule.steps}"
            )
        words = f"continue from the newest checkpoint, of step {step_of(checkpoints[-1]):,}"
        first = 0 if summary.outcome in ("interrupted", "killed") else len(found)
        found.insert(first, (words, f"{folder.resume_command}{further}"))
    if config:
        lower = f" --lr {config.optimizer.lr / 4:.2g}" if summary.outcome == "failed" else ""
        words = f"train the same again{' at a lower learning rate' if lower else ''}, in another folder"
        found.append((words, f"tgc train --config {quoted(folder.config)}{lower}"))
    return found


def _is_untrained(summary: RunSummary, config: TrainingConfig | None, checkpoints: Sequence[Path]) -> bool:
    """Return whether the best evaluation is of random weights although trained ones are on disk."""
    began_random = config is not None and config.recipe.start_from is None
    return began_random and summary.best_step == 0 and step_of(checkpoints[-1]) > 0
