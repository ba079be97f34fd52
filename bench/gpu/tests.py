"""The project's own tests that need a GPU, with every failure on disk as soon as it happens."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from bench import turns
from bench.gpu.engines import LeftOutError
from bench.gpu.stages import Record, Settings

if TYPE_CHECKING:
    import pytest

TESTS = Path(__file__).parents[2] / "tests"
ONE = TESTS / "backend" / "test_gpu.py"
NEEDED = {
    "pytest": "pytest",
    "hypothesis": "hypothesis",
    "xdist": "pytest-xdist",
    "pytest_timeout": "pytest-timeout",
    "ml_dtypes": "ml_dtypes",
}
"""module -> the package that has it"""
PLUGINS = ("xdist.plugin", "pytest_timeout", "_hypothesis_pytestplugin")
ELSEWHERE = f"{ONE}::test_kernels_touch_no_memory_that_is_not_theirs_and_do_not_race"  # the stage sanitizer does more
LONGEST = 2000  # characters of a failure: its end


class Listener:
    """Adds to a record: each failure, and for each file of tests how many passed, failed and were skipped."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._counts: dict[str, dict[str, int]] = {}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Record a file that cannot even be imported."""
        if report.failed:
            self._say_failed(report)
            self._count(report.nodeid, "failed")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record a failure, and count."""
        if report.failed:
            self._say_failed(report)
        if report.when == "call" or not report.passed:
            self._count(report.nodeid, report.outcome)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Say how a file's tests went so far."""
        file = nodeid.split("::")[0]
        if file in self._counts:
            self._record.say("tests", file=file, **self._counts[file])

    def _say_failed(self, report: Any) -> None:
        self._record.say("test failed", test=report.nodeid, reason=str(report.longrepr)[-LONGEST:])

    def _count(self, nodeid: str, outcome: str) -> None:
        counts = self._counts.setdefault(nodeid.split("::")[0], {"passed": 0, "failed": 0, "skipped": 0})
        counts[outcome] += 1


def run_tests(settings: Settings, record: Record) -> None:
    """Run them. Raises LeftOutError where pytest is missing, or what tests need beside it, and BenchmarkError, when all
    have run, if some failed."""
    missing = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if missing:
        raise LeftOutError(f"not installed: {', '.join(missing)}; run: pip install {' '.join(missing)}")
    import pytest

    files = [ONE] if settings.trial else of_the_gpu()
    options = ("-q", "-n0", "-m", "gpu", "-p", "no:cacheprovider", "--continue-on-collection-errors")
    plugins = [word for name in PLUGINS for word in ("-p", name)]
    with mock.patch.dict(os.environ, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"):  # whatever else the machine has
        status = pytest.main([*plugins, *options, "--deselect", ELSEWHERE, *map(str, files)], [Listener(record)])
    if status != pytest.ExitCode.OK:
        raise turns.BenchmarkError(f"pytest -m gpu ended with {pytest.ExitCode(status).name}; see log.txt")


def of_the_gpu() -> list[Path]:
    """Return the files with such tests: others need not even be imported, and may need packages that are missing."""
    marks = ("mark.gpu", "tests.cuda_on_cpu.places import")
    return [path for path in sorted(TESTS.rglob("test_*.py")) if any(mark in path.read_text() for mark in marks)]
