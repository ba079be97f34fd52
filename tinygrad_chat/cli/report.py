"""`tgc report`."""

from __future__ import annotations

from typing import Annotated

import typer


def report(
    run: Annotated[
        str | None,
        typer.Argument(help="a run's folder, or its name below runs/ (default: the newest run)", show_default=False),
    ] = None,
) -> None:
    """Write a run's report.html and report.md again, from the files in its folder.

    Each run ends with them; this is for one that was killed, or that still goes on.
    """
    from tinygrad_chat.reports.summary import find_run
    from tinygrad_chat.reports.writing import write_report
    from tinygrad_chat.runs.folder import RunFolder
    from tinygrad_chat.runs.lookup import newest_run

    for path in write_report(newest_run() if run is None else RunFolder(find_run(run, command="report"))):
        print(path)
