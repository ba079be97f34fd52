"""The report that a run ends with: report.html for people, report.md for a repository or an issue."""

from __future__ import annotations

from pathlib import Path

from tinygrad_chat.files import write_atomic
from tinygrad_chat.reports.content import read_report
from tinygrad_chat.reports.html import page
from tinygrad_chat.reports.markdown import markdown
from tinygrad_chat.runs.folder import RunFolder


def write_report(folder: RunFolder) -> list[Path]:
    """Write report.html and report.md from what is in a run's folder, and return their paths.

    Works however the run ended, and while it is running. Raises StorageError if they cannot be written.
    """
    report = read_report(folder)
    contents = {folder.report: page(report), folder.path / "report.md": markdown(report)}
    for path, content in contents.items():
        write_atomic(path, content.encode())
    return list(contents)
