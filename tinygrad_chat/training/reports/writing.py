"""The report that a run ends with: report.html for people, report.md for a repository or an issue."""

from __future__ import annotations

from pathlib import Path

from tinygrad_chat.training.reports.content import read_report
from tinygrad_chat.training.reports.html import page
from tinygrad_chat.training.reports.markdown import markdown
from tinygrad_chat.training.run_folder import RunFolder
from tinygrad_chat.training.storage import write_whole


def write_report(folder: RunFolder) -> list[Path]:
    """Write report.html and report.md by what stands in a run's folder, and return their paths.

    However the run ended, and while it goes on. Raises StorageError where they cannot be written.
    """
    report = read_report(folder)
    contents = {folder.path / "report.html": page(report), folder.path / "report.md": markdown(report)}
    for path, content in contents.items():
        write_whole(path, content.encode())
    return list(contents)
