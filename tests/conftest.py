"""Hypothesis profiles, threads, and fixtures that more than one test file uses."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.tiny import tiny_settings

# Under nohup or in a shell's background these are ignored, and every `tgc` that a test starts would ignore them, too.
for _name, _handler in {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_DFL}.items():
    _number = getattr(signal, _name, None)  # Windows has no SIGHUP
    if _number is not None and signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

if TYPE_CHECKING:
    from tinygrad_chat.config.record import TrainingConfig
    from tinygrad_chat.training.run import Run

# Read when NumPy and PyTorch load. Test arrays are tiny: more threads would only wait for each other on a busy machine.
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# The reference that needs PyTorch (extra `peers`) cannot even be imported without it; its tests skip.
collect_ignore = [] if find_spec("torch") else ["models/torch_gpt.py"]

_common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", max_examples=10, **_common)
settings.register_profile("ci", max_examples=25, derandomize=True, **_common)
settings.register_profile("deep", max_examples=500, **_common)
settings.load_profile("dev")


MEMORY, ROOM = Path("/dev/shm"), 4 << 30  # bytes; half of one is used
_in_memory: list[str] = []
"""The folder that this process has made there, until a test fails."""


def pytest_configure() -> None:
    """Tests make and remove twenty thousand folders, for which a disk may need milliseconds each: where the machine has
    the room, they are in memory. Workers, and processes that tests start, find them by TMPDIR."""
    if "TMPDIR" in os.environ or not os.access(MEMORY, os.W_OK):
        return
    system = os.statvfs(MEMORY)
    if system.f_bavail * system.f_frsize >= ROOM and not system.f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="tinygrad-chat-tests-", dir=MEMORY)
        _in_memory.append(tempfile.tempdir)
        # At the very end, and registered first: multiprocessing, too, removes what it has there at its exit.
        atexit.register(_remove_folders)


def pytest_sessionfinish(exitstatus: int) -> None:
    """What failed tests have left stays, to be looked at."""
    if exitstatus == pytest.ExitCode.TESTS_FAILED:
        _in_memory.clear()


def _remove_folders() -> None:
    """Remove what tests have written."""
    for folder in _in_memory:
        shutil.rmtree(folder, ignore_errors=True)


def pytest_collection_finish() -> None:
    """Ten thousand tests and all modules stay to the end: looking for garbage among them takes seconds each time."""
    gc.freeze()


@pytest.fixture
def shakespeare() -> Path:
    """The tiny Shakespeare text, where the machine has it beside the checkout."""
    path = Path(__file__).parents[2] / "shared" / "data" / "tinyshakespeare.txt"
    if not path.exists():
        pytest.skip("tinyshakespeare.txt is not on this machine")
    return path


@pytest.fixture(autouse=True)
def short_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test of training needs a long text at an evaluation."""
    monkeypatch.setattr("tinygrad_chat.training.loop.SAMPLE_LENGTH", 6)


@pytest.fixture(autouse=True)
def unforced(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test writes need not outlive a power cut, and a busy disk may take most of the tests' time to force it."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture(autouse=True)
def no_limit(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands' limit on memory would be that of all further tests; what is returned has an entry for each call."""
    calls: list[str] = []
    monkeypatch.setattr("tinygrad_chat.machine.memory.refuse_more_than_available", lambda: calls.append("limited"))
    return calls


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short text to train on."""
    path = tmp_path_factory.mktemp("data") / "text.txt"
    path.write_bytes(b"The quick brown fox jumps over the lazy dog.\n" * 20)
    return path


@pytest.fixture
def tiny(text: Path) -> Callable[..., TrainingConfig]:
    """Make a configuration of a tiny model on a short text, with settings of one's own."""
    from tinygrad_chat.training.facts import resolve_with_facts

    return lambda **settings: resolve_with_facts(tiny_settings(**{"data": str(text), **settings}))[0]


@pytest.fixture
def start(tiny: Callable[..., TrainingConfig], tmp_path: Path) -> Callable[..., Run]:
    """Start such a run below a temporary folder."""
    from tinygrad_chat.training.run import start_run

    return lambda name="run", **settings: start_run(tiny(**settings), tmp_path / name)
