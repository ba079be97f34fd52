"""The list of faults fits the package, and trying them tells those that are caught from those that live."""

from __future__ import annotations

import ast
import collections
import os
from pathlib import Path

import pytest

from tests.mutants import running
from tests.mutants.fault import FAULTS, Fault, faults_in
from tests.mutants.running import try_faults

ROOT = Path(__file__).parents[2]
PLACES = sorted({str(Path(fault.file).parent if "/" in fault.file else fault.file) for fault in FAULTS})


def why_unfit(fault: Fault) -> str | None:
    try:
        planted = fault.planted(ROOT)
        if fault.file.endswith(".py"):
            ast.parse(planted)
    except (ValueError, SyntaxError) as error:
        return str(error)
    return None


@pytest.mark.profile("ci")
def test_every_fault_fits_its_file_once_and_leaves_a_program():
    assert [unfit for unfit in map(why_unfit, FAULTS) if unfit] == []


def test_each_fault_is_listed_once_and_its_tests_are_there():
    assert collections.Counter((fault.file, fault.what) for fault in FAULTS).most_common(1)[0][1] == 1
    paths = {test.rpartition("=")[2].partition("::")[0] for fault in FAULTS for test in fault.tests}
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_faults_are_chosen_by_file_and_by_folder():
    assert faults_in([]) == FAULTS
    assert {fault.file for fault in faults_in(["optim/muon.py"])} == {"optim/muon.py"}
    assert {fault.file.partition("/")[0] for fault in faults_in(["tinygrad_chat/ops/", "nn"])} == {"ops", "nn"}
    assert faults_in(["op"]) == []


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of two functions, of which one has a test."""
    monkeypatch.setattr(running, "PRELOADED", [])
    for folder in ("tinygrad_chat", "tinygrad_chat/nn", "tests", "tests/nn"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "tinygrad_chat" / "nn" / "two.py").write_text(
        "def one():\n    return 1\n\n\ndef two():\n    return 2\n"
    )
    (tmp_path / "tests" / "nn" / "test_two.py").write_text(
        "from tinygrad_chat.nn.two import one\n\n\ndef test_one():\n    assert one() == 1\n"
    )
    (tmp_path / "conftest.py").write_text("from hypothesis import settings\n\nsettings.register_profile('ci')\n")
    return tmp_path


@pytest.mark.profile("ci")
def test_a_fault_lives_where_no_test_looks_and_the_working_tree_is_not_touched(repository: Path):
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    faults = [
        Fault("nn/two.py", "one is three", "return 1", "return 3"),
        Fault("nn/two.py", "two is three", "return 2", "return 3"),
    ]
    found = {verdict.fault.what: verdict.caught_by for verdict in try_faults(repository, faults, jobs=1)}
    assert found == {"one is three": "tests/nn/test_two.py::test_one", "two is three": ""}
    assert {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()} == before


@pytest.mark.profile("ci")
def test_the_tests_that_are_named_after_the_file_come_first(repository: Path):
    (repository / "tests" / "nn" / "test_all.py").write_text(
        "from tinygrad_chat.nn.two import one\n\n\ndef test_all():\n    assert one() == 1\n"
    )
    fault = Fault("nn/two.py", "one is three", "return 1", "return 3")
    [verdict] = try_faults(repository, [fault], jobs=1)
    assert verdict.caught_by == "tests/nn/test_two.py::test_one"


@pytest.mark.profile("ci")
def test_a_fault_that_leaves_its_tests_hanging_is_caught(repository: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(running, "LONGEST", 3.0)
    fault = Fault("nn/two.py", "one never comes", "return 1", "__import__('time').sleep(1000)")
    [verdict] = try_faults(repository, [fault], jobs=1)
    assert verdict.caught_by == "a hang"


@pytest.mark.profile("ci")
def test_what_does_not_fit_or_fails_anyway_is_an_error_and_no_catch(repository: Path):
    gone = Fault("nn/two.py", "three is gone", "return 3", "return 4")
    with pytest.raises(ValueError, match=r"nn/two.py: three is gone: expected 'return 3' once, found it 0 times"):
        list(try_faults(repository, [gone], jobs=1))
    (repository / "tests" / "nn" / "test_wrong.py").write_text("def test_wrong():\n    raise ValueError\n")
    fault = Fault("nn/two.py", "one is three", "return 1", "return 3")
    with pytest.raises(RuntimeError, match=r"tests/nn: fails without any fault: tests/nn/test_wrong.py::test_wrong"):
        list(try_faults(repository, [fault], jobs=1))


@pytest.mark.profile("deep")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("place", PLACES)
def test_the_tests_of_a_folder_catch_each_of_its_faults(place: str):
    """`python -m tests.mutants` does so for all of them."""
    jobs = 1 if "PYTEST_XDIST_WORKER" in os.environ else os.cpu_count() or 1
    verdicts = list(try_faults(ROOT, faults_in([place]), jobs=jobs))
    assert [f"{verdict.fault.file}: {verdict.fault.what}" for verdict in verdicts if not verdict.caught_by] == []
