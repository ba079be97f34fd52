"""The stages of `python -m bench gpu` that run tests and the sanitizer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import turns
from bench.gpu import sanitizer, tests
from bench.gpu.engines import LeftOutError
from bench.gpu.report import gather, page_of
from bench.gpu.stages import Record, Settings, record_of
from bench.kernels import files
from tests.cuda_on_cpu.compiler import RawModule
from tests.cuda_on_cpu.device import DEVICE, standing_in
from tests.cuda_on_cpu.places import needs_compiler
from tests.profiles import DEEP
from tinygrad_chat.kernels.cuda import launch as launching
from tinygrad_chat.kernels.cuda.launch import flags, source

SUITE = """
import pytest

@pytest.mark.gpu
def test_right():
    pass

@pytest.mark.gpu
def test_wrong():
    assert 1 == 2, "kernels differ"

@pytest.mark.gpu
def test_elsewhere():
    pytest.skip("no GPU")
"""


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return record_of("tests", tmp_path)


def test_every_failure_of_a_test_is_recorded_and_each_file_is_counted(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "test_some.py").write_text(SUITE)
    (tmp_path / "test_torn.py").write_text("import nowhere_to_be_found  # mark.gpu")
    monkeypatch.setattr(tests, "of_the_gpu", lambda: sorted(tmp_path.glob("test_*.py")))
    monkeypatch.setattr(tests, "ELSEWHERE", "nothing")
    with pytest.raises(
        turns.BenchmarkError, match=r"^pytest -m gpu ended with (INTERRUPTED|TESTS_FAILED); see log.txt$"
    ):
        tests.run_tests(Settings(str(tmp_path)), record)
    failed = {line["test"].split("/")[-1]: line["reason"] for line in record.lines() if line["what"] == "test failed"}
    assert set(failed) == {"test_some.py::test_wrong", "test_torn.py"}
    assert "kernels differ" in failed["test_some.py::test_wrong"]
    assert "nowhere_to_be_found" in failed["test_torn.py"]
    counted = record.last("tests")
    assert {name: counted[name] for name in ("passed", "failed", "skipped")} == {"passed": 1, "failed": 1, "skipped": 1}
    page = page_of(gather(tmp_path))
    assert "test_some.py | 1 | 1 | 1 |" in page
    assert "test_some.py::test_wrong" in page


def test_what_the_tests_need_and_is_missing_is_named(record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tests, "find_spec", lambda name: None if name in ("pytest", "xdist") else 1)
    line = r"^not installed: pytest, pytest-xdist; run: pip install pytest pytest-xdist$"
    with pytest.raises(LeftOutError, match=line):
        tests.run_tests(Settings(str(tmp_path)), record)


def test_no_file_with_tests_for_a_gpu_is_left_out():
    names = {path.name for path in tests.of_the_gpu()}
    assert names >= {"test_gpu.py", "test_cuda.py", "test_flash_attention.py", "test_device.py", "test_graphs.py"}
    assert tests.ONE in tests.of_the_gpu()


TOOL = """#!{python}
import subprocess, sys
assert sys.argv[1] == "--tool" and sys.argv[3] == "--error-exitcode", sys.argv
if sys.argv[2] == "racecheck":
    print("RACECHECK SUMMARY: 2 hazards")
    sys.exit(int(sys.argv[4]))
if sys.argv[2] == "initcheck":
    print("half", flush=True)
    import time; time.sleep(600)
sys.exit(0 if sys.argv[-2:] == ["bench.gpu.sanitizer", "cupy"] else 1)
"""


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "compute-sanitizer"
    path.write_text(TOOL.format(python=sys.executable))
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(sanitizer, "SECONDS", 2.0)


@pytest.mark.usefixtures("tool")
def test_what_each_tool_found_is_recorded_and_one_that_hangs_does_not_stop_the_next(tmp_path: Path):
    record = record_of("sanitizer", tmp_path)
    with pytest.raises(turns.BenchmarkError, match=r"^not clean: racecheck, initcheck$"):
        sanitizer.sanitize(Settings(str(tmp_path)), record)
    found = {line["tool"]: (line["outcome"], line["report"].strip()) for line in record.lines()}
    assert found == {
        "memcheck": ("nothing found", ""),
        "racecheck": ("found errors", "RACECHECK SUMMARY: 2 hazards"),
        "initcheck": ("ran past 2 s", "half"),
        "synccheck": ("nothing found", ""),
    }
    assert "| racecheck | found errors |" in page_of(gather(tmp_path))


def test_a_machine_without_the_tool_is_told_what_has_it(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sanitizer.shutil, "which", lambda name: None)
    with pytest.raises(LeftOutError, match="compute-sanitizer is not installed: it is part of the CUDA toolkit"):
        sanitizer.sanitize(Settings(str(tmp_path)), record)
    assert record.lines() == []


@needs_compiler
@DEEP
def test_the_steps_that_are_sanitized_run_every_kernel(monkeypatch: pytest.MonkeyPatch):
    every = {
        (file, name)
        for file, real in files()
        for name in RawModule(code=source(file), options=flags(np.dtype(real))).parameters
    }
    seen: set[Any] = set()
    original = launching._function

    def watched(xp: Any, file: str, name: str, real: Any, shared: int) -> Any:
        seen.add((file, name))
        return original(xp, file, name, real, shared)

    monkeypatch.setattr(launching, "_function", watched)
    with standing_in(capturing=True, compute_capability="90"):
        sanitizer.run_steps(DEVICE)
    assert every - seen == set()
