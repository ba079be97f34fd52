"""Plant faults in the package, one at a time, and see that the tests of its own folder catch each.

    python -m tests.mutants [FILE_OR_FOLDER ...] [--jobs N]

Without names all faults are tried. The exit code is 1 where one lives: a test is missing, then.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.mutants.fault import faults_in
from tests.mutants.running import Verdict, try_faults

ROOT = Path(__file__).parents[2]

for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # as in tests/conftest.py, before anything is imported
    os.environ.setdefault(_variable, "1")


def main() -> int:
    """Try the faults that are asked for; print a line for each, and those that live once more."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("places", nargs="*", help="files or folders of the package, such as ops or optim/muon.py")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="faults at a time (one for each core)")
    arguments = parser.parse_args()
    faults = faults_in(arguments.places)
    if not faults:
        parser.error(f"no faults in {', '.join(arguments.places)}")
    print(f"{len(faults)} faults, {arguments.jobs} at a time; first the tests without any", flush=True)
    lived = []
    for verdict in try_faults(ROOT, faults, jobs=arguments.jobs):
        print(line_of(verdict), flush=True)
        if not verdict.caught_by:
            lived.append(verdict)
    print(f"\n{len(faults) - len(lived)} of {len(faults)} were caught")
    for verdict in lived:
        print(line_of(verdict))
    return 1 if lived else 0


def line_of(verdict: Verdict) -> str:
    """Return a line of the table: the fault, and the test that caught it."""
    fault = verdict.fault
    return f"{fault.file:<34} {fault.what:<58} {verdict.seconds:5.1f} s  {verdict.caught_by or 'LIVES'}"


if __name__ == "__main__":
    sys.exit(main())
