"""Running tests against faults: each fault in a copy of the repository, several copies at once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.fault import PACKAGE, Fault

COPIED = ("tinygrad_chat", "tests", "bench", "examples", "docs", ".ci")
COMPILED_INTO_OTHERS = "kernels/numba/exponential.py"  # Numba keeps code as long as its own file stays the same
PYTEST = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-rfE", "--tb=no", "-p", "no:cacheprovider"]
ALL_PASSED, SOME_FAILED = 0, 1  # pytest's exit codes


@dataclass(frozen=True)
class Verdict:
    """What came of a fault: the first test `caught_by` which it was, "" where it lives, after how many seconds."""

    fault: Fault
    caught_by: str
    seconds: float


def try_faults(root: Path, faults: Sequence[Fault], *, jobs: int) -> Iterator[Verdict]:
    """Yield what comes of each fault of the repository at `root`, `jobs` at a time, as they are done.

    The working tree is not touched. Raises ValueError for a fault that does not fit its file, and RuntimeError where
    tests fail without any fault, or cannot even be collected with one: then nothing follows.
    """
    planted = {fault: fault.planted(root) for fault in faults}
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(jobs) as pool:
        healthy = Path(folder) / "healthy"
        _copy(root, healthy)
        suites = sorted({fault.tests for fault in faults})
        for suite, failure in zip(suites, pool.map(lambda suite: _first_failure(healthy, suite), suites), strict=True):
            if failure:
                raise RuntimeError(f"{' '.join(suite)}: fails without any fault: {failure}")

        def try_fault(number: int, fault: Fault) -> Verdict:
            began, copy = time.monotonic(), Path(folder) / str(number)
            shutil.copytree(healthy, copy, copy_function=os.link)  # what is compiled there comes along
            _replace(copy / PACKAGE / fault.file, planted[fault])
            if fault.file == COMPILED_INTO_OTHERS:
                for index in (copy / PACKAGE / "kernels").rglob("*.nbi"):
                    index.unlink()
            failure = _first_failure(copy, fault.tests)
            shutil.rmtree(copy)
            return Verdict(fault, failure, time.monotonic() - began)

        waiting = [pool.submit(try_fault, *numbered) for numbered in enumerate(faults)]
        try:
            for done in as_completed(waiting):
                yield done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _copy(root: Path, to: Path) -> None:
    to.mkdir()
    ignore = shutil.ignore_patterns(".hypothesis", "*.egg-info")
    for entry in COPIED:
        if (root / entry).exists():
            shutil.copytree(root / entry, to / entry, ignore=ignore)
    for file in [*root.glob("*.py"), *root.glob("*.md"), *root.glob("*.toml")]:
        shutil.copy2(file, to)


def _replace(path: Path, content: str) -> None:
    path.unlink()  # a link to the healthy one
    path.write_text(content, encoding="utf-8")


def _first_failure(root: Path, suite: Sequence[str]) -> str:
    """Run tests in a copy; return the first that fails, "" where all pass."""
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [*PYTEST, "--hypothesis-profile", "ci", *suite]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == ALL_PASSED:
        return ""
    if done.returncode not in (SOME_FAILED, *range(-64, 0)):  # a test, or a signal that ended the process
        raise RuntimeError(f"{' '.join(suite)}: cannot be run:\n{done.stdout}{done.stderr}")
    found = re.search(r"^(?:FAILED|ERROR) (\S+::.*?)(?: - .*)?$", done.stdout, re.MULTILINE)
    return found[1] if found else f"signal {-done.returncode}"
