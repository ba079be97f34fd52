"""Run a command where CuPy finds a GPU: `python -m tests.cupy_on_cpu pytest -m gpu`, `... tgc train --backend cupy`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.cupy_on_cpu.build import ROOT, Environment


def main() -> None:
    """Build what is missing, and become the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.cupy_on_cpu", description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / ".cupy_on_cpu", help="of the environment")
    parser.add_argument("--capability", type=int, default=90, help="compute capability, times 10 (default: 90)")
    parser.add_argument("--memory", type=int, default=8 << 10, help="of the GPU, in MiB (default: 8192)")
    parser.add_argument("--eager", action="store_true", help="do what is submitted at once, not when something waits")
    parser.add_argument("--trace", action="count", default=0, help="print graphs; twice: launches, too")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="and its arguments")
    given = parser.parse_args()
    if not given.command:
        parser.error("expected a command, such as: pytest -m gpu")
    environment = Environment(given.folder.resolve())
    environment.build()
    settings = {name: str(int(getattr(given, name))) for name in ("capability", "memory", "eager", "trace")}
    os.environ.update(environment.variables(), **{f"CUPY_ON_CPU_{name.upper()}": x for name, x in settings.items()})
    try:
        os.execvp(given.command[0], given.command)
    except OSError as error:
        sys.exit(f"cupy_on_cpu: {given.command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
