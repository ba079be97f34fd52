"""How a GPU computes a run's products is kept beside the run, so that it computes the same bits when it is resumed."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cuda_on_cpu.device import DEVICE, products_library, standing_in
from tests.cuda_on_cpu.places import needs_compiler
from tests.training.test_loop import Start, finish, log
from tinygrad_chat.backend import compute, get_backend
from tinygrad_chat.cli.display import open_display
from tinygrad_chat.errors import MemoryShortageError, StorageError
from tinygrad_chat.kernels.cuda import cublas, cublas_lt
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, resume_run

pytestmark = needs_compiler
FASTEST, THIRDS = 3, 4
"""The faster two of the stand-in's algorithms."""
SETTINGS: dict[str, Any] = {"steps": 6, "eval_every": 2, "backend": "cupy", "width": 16, "context": 8}


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let `--backend cupy` be the stand-in."""
    monkeypatch.setattr(compute, "get_backend", lambda name: DEVICE if name == "cupy" else get_backend(name))
    with standing_in(capturing=True):
        yield


def runs(algorithm: int) -> int:
    return products_library().count_runs(algorithm)


def weights(run: Run) -> bytes:
    return DEVICE.to_host(run.model.parameters().data).tobytes()


def shown(run: Run) -> list[str]:
    """Return the lines that a run shows about products.json."""
    screen = io.StringIO()
    with open_display(screen) as display:
        display.begin(run)
        for event in train(run):
            display.show(event)
    return [line for line in screen.getvalue().splitlines() if "products.json" in line]


def test_a_resumed_run_makes_the_choices_of_before_though_others_are_faster_now(start: Start):
    whole = start("whole", **SETTINGS)
    finish(whole)
    resumed = start("resumed", **SETTINGS)
    finish(resumed, stop_after=3)
    chosen = resumed.folder.products.read_bytes()
    products_library().set_duration(THIRDS, 1)
    try:
        before = runs(FASTEST), runs(THIRDS)
        assert shown(resume_run(resumed.folder.path, {})) == []
    finally:
        products_library().set_duration(THIRDS, 3)
    assert runs(FASTEST) > before[0]
    assert runs(THIRDS) == before[1]
    assert resumed.folder.products.read_bytes() == chosen
    assert log(resumed) == log(whole)


def test_a_run_with_choices_copied_from_another_computes_its_bits(start: Start):
    products_library().set_duration(THIRDS, 1)
    try:
        first = start("first", **SETTINGS)
        finish(first)
    finally:
        products_library().set_duration(THIRDS, 3)
    found = {}
    for name in ("copied", "chosen anew"):
        run = start(name, **SETTINGS)
        if name == "copied":
            run.folder.products.write_bytes(first.folder.products.read_bytes())
        finish(run)
        found[name] = weights(run)
    assert found["copied"] == weights(first)
    assert found["chosen anew"] != weights(first)


FOREIGN = {
    "another device's": (
        lambda record: json.dumps({**record, "made_by": "a larger GPU, cublasLt 120000"}),
        "made on a larger GPU, cublasLt 120000, this is a stand-in, cublasLt 130100",
    ),
    "cut off": (lambda record: json.dumps(record)[:-9], "not valid JSON"),
    "of other types": (lambda record: json.dumps({**record, "algorithms": [1, 2]}), "algorithms: expected"),
    "empty": (lambda record: "", "not valid JSON"),
    "of algorithms that are none": (
        lambda record: json.dumps({**record, "algorithms": dict.fromkeys(record["algorithms"], "\x1b[2J" * 99)}),
        "cublasLt no longer offers an algorithm of it",
    ),
    "with a name that is no text for a screen": (
        lambda record: json.dumps({**record, "made_by": "\x1b[2J\n" * 9999}),
        "this is a stand-in",
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_choices_that_cannot_be_used_are_made_again_and_that_is_one_line(start: Start, kind: str):
    change, reason = FOREIGN[kind]
    run = start("run", **SETTINGS)
    finish(run, stop_after=3)
    chosen = run.folder.products.read_text()
    run.folder.products.write_text(change(json.loads(chosen)))
    (line,) = shown(resume_run(run.folder.path, {}))
    assert line.startswith("step 3: products.json cannot be used (")
    assert line.endswith("); from here on sums are rounded differently")
    assert reason in line
    assert "\x1b" not in line
    assert len(line) < 600
    assert run.folder.products.read_text() == chosen


def test_without_cublaslt_a_resumed_run_says_that_it_rounds_differently(start: Start, monkeypatch: pytest.MonkeyPatch):
    run = start("run", **SETTINGS)
    finish(run, stop_after=3)

    def missing(xp: Any) -> Any:
        raise OSError("no such file")

    monkeypatch.setattr(cublas_lt, "load_library", missing)
    (line,) = shown(resume_run(run.folder.path, {}))
    assert "this is a stand-in, without cublasLt" in line


@pytest.mark.parametrize("backend", ["cupy", "numpy"])  # as for any file of a run, whether it will be read or not
def test_a_link_in_place_of_the_file_is_refused(start: Start, backend: str):
    run = start("run", **SETTINGS)
    finish(run, stop_after=3)
    elsewhere = run.folder.products.rename(run.folder.path.parent / "elsewhere.json")
    run.folder.products.symlink_to(elsewhere)
    resumed = resume_run(run.folder.path, {"backend": backend})
    with pytest.raises(StorageError, match=r"products\.json"):
        finish(resumed)


def test_with_no_autotune_cublas_chooses_and_nothing_is_kept(start: Start):
    before = [runs(algorithm) for algorithm in range(7)]
    run = start("run", **SETTINGS, autotune=False)
    finish(run)
    assert [runs(algorithm) for algorithm in range(7)] == before
    assert not run.folder.products.exists()


def test_on_the_host_nothing_is_chosen(start: Start):
    run = start("run", **{**SETTINGS, "backend": "numpy"})
    finish(run)
    assert run.config.compute.autotune
    assert not run.folder.products.exists()


def test_no_room_for_the_workspace_is_one_line(start: Start, monkeypatch: pytest.MonkeyPatch):
    def full(size: int) -> Any:
        raise MemoryError(f"Out of memory allocating {size:,} bytes")

    run = start("run", **SETTINGS)
    monkeypatch.setattr(cublas, "_handles", type(cublas._handles)())
    monkeypatch.setattr(DEVICE.xp.cuda, "alloc", full)
    with pytest.raises(MemoryShortageError, match=r"^step 0: out of memory allocating 33,554,432 bytes, with "):
        finish(run)
