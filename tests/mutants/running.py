"""Running tests against faults: each fault in a copy of the repository and in a process of its own, several at once."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.mutants.fault import PACKAGE, Fault

COPIED = ("tinygrad_chat", "tests", "bench", "examples", "docs", ".ci")
OPTIONS = ("-q", "-x", "--hypothesis-profile", "ci", "-n", "0", "-p", "no:cacheprovider")
LONGEST = 900.0  # seconds that the tests of a fault may take

# What takes long to import, and is none of the package, is imported once: processes are forked from one that has it.
PRELOADED = ["numpy", "torch", "numba", "safetensors.numpy", "rich.console", "typer"]


@dataclass(frozen=True)
class Verdict:
    """What came of a fault: the first test it was `caught_by`, "" where it lives, after how many seconds."""

    fault: Fault
    caught_by: str
    seconds: float


def try_faults(root: Path, faults: Sequence[Fault], *, jobs: int) -> Iterator[Verdict]:
    """Yield what comes of each fault of the repository at `root`, `jobs` at a time, as they are done.

    The working tree is not touched. Raises ValueError for a fault that does not fit its file, and RuntimeError where
    tests fail without any fault, or cannot even be collected with one.
    """
    planted = {fault: fault.planted(root) for fault in faults}
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(jobs) as pool:
        healthy = Path(folder) / "healthy"
        copy_repository(root, healthy)
        suites = sorted({fault.tests for fault in faults})
        for suite, failure in zip(suites, pool.map(lambda suite: first_failure(healthy, suite), suites), strict=True):
            if failure:
                raise RuntimeError(f"{' '.join(suite)}: fails without any fault: {failure}")

        def try_one(number: int, fault: Fault) -> Verdict:
            return try_fault(healthy, Path(folder) / str(number), fault, planted[fault])

        waiting = [pool.submit(try_one, *numbered) for numbered in enumerate(faults)]
        try:
            for done in as_completed(waiting):
                yield done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def copy_repository(root: Path, to: Path) -> None:
    """Copy what tests need, with what has been compiled of it."""
    to.mkdir()
    for entry in COPIED:
        if (root / entry).exists():
            shutil.copytree(root / entry, to / entry)
    for file in [*root.glob("*.py"), *root.glob("*.md"), *root.glob("*.toml")]:
        shutil.copy2(file, to)


def try_fault(healthy: Path, copy: Path, fault: Fault, planted: str) -> Verdict:
    """Run the tests of a fault in a copy, made and removed here, of the healthy repository."""
    began = time.monotonic()
    shutil.copytree(healthy, copy, copy_function=os.link)
    file = copy / PACKAGE / fault.file
    file.unlink()  # only a link to the healthy one
    file.write_text(planted, encoding="utf-8")
    failure = first_failure(copy, fault.tests, sooner=f"test_{file.stem}.py")
    shutil.rmtree(copy)
    return Verdict(fault, failure, time.monotonic() - began)


def first_failure(root: Path, suite: Sequence[str], *, sooner: str = "") -> str:
    """Run tests of the repository at `root`; return the first that fails, "" where all pass.

    Those in files with the name `sooner` come first: a fault is most often caught there. Raises RuntimeError where they
    cannot be run.
    """
    with tempfile.TemporaryDirectory(prefix="mutant-") as temporary:  # tests that fail leave theirs behind
        return _first_failure(root, suite, sooner, temporary)


def _first_failure(root: Path, suite: Sequence[str], sooner: str, temporary: str) -> str:
    context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
    context.set_forkserver_preload(PRELOADED)
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_run_tests, args=(root, suite, sooner, temporary, there))
    process.start()
    there.close()
    if not here.poll(LONGEST):  # beyond pytest's own limit: what has failed may hang again as it is cleaned up
        process.kill()
        process.join()
        return "a hang"
    try:
        code, failure, output = here.recv()
    except EOFError as error:
        process.join()
        if (process.exitcode or 0) < 0:
            return f"signal {-process.exitcode}"  # pyright: ignore[reportOptionalOperand]
        raise RuntimeError(f"{' '.join(suite)}: cannot be run") from error
    process.join()
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"{' '.join(suite)}: cannot be run:\n{output}")
    return failure or ("" if code == pytest.ExitCode.OK else "a test")


class _FirstFailure:
    """A plugin of pytest's that lets the tests in some files come `sooner`, and remembers the first that fails."""

    def __init__(self, sooner: str) -> None:
        self._sooner, self.name = sooner, ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: item.path.name != self._sooner)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid


def _run_tests(root: Path, suite: Sequence[str], sooner: str, temporary: str, result: Connection) -> None:
    """Run pytest in this process, on the repository at `root` and no other, with temporary files in a given folder."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "tinygrad_chat", "bench")]:
        del sys.modules[name]
    os.chdir(root)
    os.environ |= {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": temporary}
    tempfile.tempdir = temporary
    sys.path.insert(0, str(root))
    sys.dont_write_bytecode = True
    failure = _FirstFailure(sooner)
    with tempfile.TemporaryFile("w+") as output, contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            code = pytest.main([*OPTIONS, *suite], plugins=[failure])
        except Exception:  # pytest's own end minds, too, what a test that failed has left open
            if not failure.name:
                raise
            code = pytest.ExitCode.TESTS_FAILED
        output.seek(0)
        text = output.read()
    result.send((code, failure.name, text))
