"""What holds for every test, those of docstrings and of bench/ too: how many run at once, which, with which cache."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.selection import asks_for_gpu, some_cases
from tinygrad_chat.files import CACHE_VARIABLE

PROFILES = ("dev", "ci", "deep")  # each looks harder than the one before


def pytest_configure(config: pytest.Config) -> None:
    """Let nobody but `pytest -m gpu` see a GPU: for all other tests, `--backend auto` means the CPU."""
    if not asks_for_gpu(config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run the whole suite on all cores, and what somebody chose from it in this process, where a debugger can be."""
    return 0 if _is_chosen(config) else os.cpu_count() or 1


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker what its own command line does not show."""
    node.workerinput["chosen"] = _is_chosen(node.config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked for a profile that looks harder than the one in force.

    In the first one, `pytest` alone leaves out what takes half a second or more, and runs a few cases of each test, so
    that it answers within two minutes. What somebody chose is run with all its cases, however long they take.
    """
    name = config.getoption("--hypothesis-profile")
    effort = PROFILES.index(name) if name in PROFILES else 0
    chosen = getattr(config, "workerinput", {}).get("chosen", _is_chosen(config))
    if chosen:
        effort = max(effort, PROFILES.index("ci"))
    for item in items:
        marker = item.get_closest_marker("profile")
        if marker is not None and PROFILES.index(marker.args[0]) > effort:
            item.add_marker(pytest.mark.skip(reason=f"takes long: --hypothesis-profile {marker.args[0]}"))
        if item.get_closest_marker("gpu") and not asks_for_gpu(config.option.markexpr):
            item.add_marker(pytest.mark.skip(reason="needs a GPU, which only pytest -m gpu sees"))
    if not effort:
        kept = some_cases(item.nodeid for item in items)
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in kept])
        items[:] = [item for item in items if item.nodeid in kept]


def _is_chosen(config: pytest.Config) -> bool:
    """Return whether somebody named tests, rather than asked for all."""
    named = config.args_source is pytest.Config.ArgsSource.ARGS
    return bool(named or config.option.markexpr or config.option.keyword)


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests' cache folders are: ten thousand among the tests' own folders would slow each of those down."""
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(autouse=True)
def cache(caches: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of each test's own, and of the processes that it starts: the user's is never touched."""
    folder = Path(tempfile.mkdtemp(dir=caches))
    monkeypatch.setenv(CACHE_VARIABLE, str(folder))
    return folder
