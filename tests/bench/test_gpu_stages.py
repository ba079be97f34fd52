"""The stages of `python -m bench gpu`: none can spoil another, and what was found is on disk at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench import turns
from bench.__main__ import main
from bench.gpu import correctness, engines, report
from bench.gpu.generation import CALL_BY_CALL
from bench.gpu.report import draw, found_in, gather, page_of
from bench.gpu.stage import FUNCTIONS, run_stage
from bench.gpu.stages import DONE, LATE, LEFT_OUT, NO_MEMORY, STAGES, Record, Settings, Stage, record_of, run_stages
from tests.profiles import DEEP

PREFACE = "import json, os, pathlib, signal, subprocess, sys, time\nname, path, request = sys.argv[1:]\n"
SAY = "open(path, 'a').write(json.dumps({'what': %s}) + '\\n')\n"
BARE = ("numba", "llvmlite", "typer", "rich", "tomli_w", "platformdirs")  # what an image with CUDA need not have


def stage(name: str, program: str, limit: float = 60) -> Stage:
    """Return a stage that runs a program; it knows its name, the path of its record and the settings."""
    return Stage(name, limit, "nothing", (sys.executable, "-c", PREFACE + program))


def outcomes(stages: list[Stage], folder: Path) -> dict[str, str]:
    return {each.name: record_of(each.name, folder).last("ended")["outcome"] for each in stages}


def test_a_stage_that_fails_hangs_or_is_killed_is_recorded_and_the_next_begins(tmp_path: Path):
    stages = [
        stage("fails", SAY % "'half'" + "sys.exit(3)"),
        stage("hangs", SAY % "'half'" + "time.sleep(600)", limit=1.0),
        stage("dies", "os.kill(os.getpid(), signal.SIGKILL)"),
        stage("works", SAY % "'whole'"),
    ]
    run_stages(stages, Settings(str(tmp_path)))
    assert outcomes(stages, tmp_path) == {"fails": "failed", "hangs": LATE, "dies": "failed", "works": DONE}
    assert record_of("dies", tmp_path).last("ended")["reason"] == "ended by SIGKILL; see log.txt"
    for name in ("fails", "hangs"):  # what it found first is kept
        assert [line["what"] for line in record_of(name, tmp_path).lines()] == ["half", "ended"]


@DEEP
def test_a_stage_ends_with_all_that_it_has_started(tmp_path: Path):
    program = "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    run_stages([stage("hangs", program + SAY % "child.pid" + "time.sleep(600)", limit=3.0)], Settings(str(tmp_path)))
    child = record_of("hangs", tmp_path).lines()[0]["what"]
    for _ in range(100):  # as soon as init has collected it
        if not Path(f"/proc/{child}").exists() or "\nState:\tZ" in Path(f"/proc/{child}/status").read_text():
            return
        time.sleep(0.05)
    pytest.fail(f"process {child} outlived its stage")


def test_what_a_stage_found_is_on_disk_before_the_next_begins(tmp_path: Path):
    seen: list[set[str]] = []
    first = stage("first", SAY % "'found'")
    second = stage("second", SAY % "(pathlib.Path(path).parent / 'first.jsonl').read_text()")
    run_stages(
        [first, second],
        Settings(str(tmp_path)),
        after_each=lambda: seen.append({path.name for path in tmp_path.iterdir()}),
    )
    of_first = [json.loads(line) for line in record_of("second", tmp_path).lines()[0]["what"].splitlines()]
    assert [line["what"] for line in of_first] == ["found", "ended"]
    assert ["second.jsonl" in names for names in seen] == [False, True]


def test_no_stage_begins_that_might_not_end_in_the_time_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    stages = [stage("long", SAY % "'ran'", limit=100), stage("short", SAY % "'ran'", limit=30)]
    run_stages(stages, Settings(str(tmp_path)), minutes=1)
    assert outcomes(stages, tmp_path) == {"long": LEFT_OUT, "short": DONE}
    assert record_of("long", tmp_path).lines()[0]["reason"] == "may take 100 s, and 60 s are left of 1 minutes"
    assert "gpu long: left out (may take 100 s" in capsys.readouterr().err


def test_resuming_goes_on_with_the_stages_that_are_not_done_in_their_order(tmp_path: Path):
    count = "seen = pathlib.Path(path).parent / 'order'\nopen(seen, 'a').write(name + ' ')\n"
    fails_once = count + "sys.exit(pathlib.Path(seen).read_text().count('second') < 2)"
    stages = [stage("first", count), stage("second", fails_once), stage("third", count + SAY % "'found'", limit=100)]
    run_stages(stages, Settings(str(tmp_path)), minutes=1.2)
    assert outcomes(stages, tmp_path) == {"first": DONE, "second": "failed", "third": LEFT_OUT}
    run_stages(stages, Settings(str(tmp_path)), resume=True)
    assert set(outcomes(stages, tmp_path).values()) == {DONE}
    assert (tmp_path / "order").read_text().split() == ["first", "second", "second", "third"]
    assert [line["what"] for line in record_of("third", tmp_path).lines()] == ["found", "ended"]  # nothing of before
    run_stages(stages[:1], Settings(str(tmp_path)))  # without it all begins anew
    assert (tmp_path / "order").read_text().split()[-1] == "first"


def test_a_line_that_was_cut_off_does_not_count(tmp_path: Path):
    record = Record(tmp_path / "stage.jsonl")
    assert record.lines() == []
    record.say("found", number=1)
    with record.path.open("a") as file:
        file.write('{"what": "fou')
    assert record.lines() == [{"what": "found", "number": 1}]
    record.say("ended")
    assert record.lines() == [{"what": "found", "number": 1}, {"what": "ended"}]


def test_the_stages_have_functions_and_the_most_telling_come_first():
    assert [stage.name for stage in STAGES][:3] == ["machine", "kernels", "gpt2"]
    assert set(FUNCTIONS) == {stage.name for stage in STAGES}


class DeviceFullError(RuntimeError):
    pass


DeviceFullError.__name__ = "OutOfMemoryError"  # as CuPy's and PyTorch's are called


@pytest.mark.parametrize(
    ("error", "outcome", "status"),
    [
        (MemoryError("Out of memory for cuBLAS"), NO_MEMORY, 1),
        (DeviceFullError("CUDA out of memory"), NO_MEMORY, 1),
        (engines.OutOfRoomError("no room"), NO_MEMORY, 1),
        (engines.LeftOutError("no checkout"), LEFT_OUT, 0),
        (ValueError("two\nlines"), "failed", 1),
    ],
)
def test_what_stops_a_stage_is_a_line_of_its_record(
    error: Exception, outcome: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def stopped(settings: Settings, record: Record) -> None:
        raise error

    monkeypatch.setattr(correctness, "check_kernels", stopped)
    record = Record(tmp_path / "stage.jsonl")
    assert run_stage(*FUNCTIONS["kernels"], Settings(str(tmp_path)), record) == status
    (line,) = record.lines()
    assert line["outcome"] == outcome
    assert "\n" not in line["reason"]


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--stages", "gpt2,gpt3"], "received gpt3"),
        (["--minutes", "0"], "expected a number of minutes above 0, received '0'"),
        (["--minutes", "soon"], "expected a number of minutes above 0, received 'soon'"),
        (["--estimate", "--configurations", "GPT-5"], "invalid choice: 'GPT-5'"),
    ],
)
def test_a_mistake_in_the_call_is_told_at_once(
    flags: list[str], line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.argv", ["bench", "gpu", *flags])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert line in capsys.readouterr().err


def training_row(engine: str, rate: float, ratio: float) -> dict[str, Any]:
    sizes = {"configuration": "S1", "engine": engine, "batch": 64, "sizes": "64,65,256,384,6,6"}
    speeds = {"tokens_per_second": rate, "flops_per_second": 1e14, "ours_over_this": ratio}
    return {**sizes, **speeds, "peak_mib": 100.0, "tokens_per_second_samples": [rate]}


def test_the_page_and_the_chart_show_what_was_found_and_what_was_not(tmp_path: Path):
    record_of("machine", tmp_path).say("limits", product_rate=4e14, bandwidth=2e12)
    kernels = record_of("kernels", tmp_path)
    times = {"plan": 1e-5, "cublas": 2e-5}
    kernels.say("product", layer="up", part="forward", operations=10**10, distance=1e-3, seconds=times)
    kernels.say("epilogue", epilogue="gelu", distance=0.9, seconds={"within": None, "beside": 1e-5})
    kernels.say("no epilogue", epilogue="slope of gelu", reason="none")
    small = record_of("small", tmp_path)
    small.say("training", **training_row(turns.OURS, 3e6, 1.0))
    small.say("losses", configuration="S1", engine="torch eager", losses=[4.0], attention="PyTorch's math")
    small.say("training", **training_row("torch eager", 2e6, 1.5))
    small.say("ended", outcome=DONE, reason="", seconds=1.0)
    record_of("nanochat", tmp_path).say("ended", outcome=LEFT_OUT, reason="no checkout", seconds=0.0)
    small = Record(tmp_path / "gpt2.jsonl")
    small.say("first", configuration="GPT-2 124M", engine=turns.OURS, batch=16, tokens_per_second=3e5)
    small.say("training", **training_row(turns.OURS, 3e6, 1.0) | {"configuration": "mini-gpt"})  # without a peer
    small.say("ended", outcome=LATE, reason="360 s", seconds=360.0)
    stages = gather(tmp_path)
    assert list(stages) == ["machine", "kernels", "gpt2", "small", "nanochat"]
    page = page_of(stages)
    assert "| up | forward | 1,000.00 | 500.00 | 1.0e-03 |" in page
    assert "| gelu | values are wrong | 10 | 9.0e-01 |" in page
    assert "- no epilogue: slope of gelu: none" in page
    assert "| S1 | torch eager | 64 | 2,000,000 | 25.0% | 100 | 1.50 | PyTorch's math |" in page
    assert "| nanochat | training nanochat's d12 beside nanochat itself | left out: no checkout | 0.0 |" in page
    assert "| GPT-2 124M | tinygrad_chat | 16 | 300,000 |" in page  # the stage came no further
    assert (
        "| gpt2 | training GPT-2 124M beside PyTorch, eager and compiled | ran past its limit: 360 s | 360.0 |" in page
    )
    assert "did not end" in page  # the stage machine was cut off
    pytest.importorskip("matplotlib")
    draw({"gpt2": stages["gpt2"]}, tmp_path, "gpu")
    assert not list(tmp_path.glob("*.png"))  # nothing to compare
    draw(stages, tmp_path, "gpu")
    assert {path.name for path in tmp_path.glob("gpu.*")} == {"gpu.png", "gpu.svg"}


@pytest.mark.parametrize(("trial", "place"), [(True, "a CPU, as a trial"), (False, "one GPU")])
def test_a_trial_does_not_claim_to_have_used_a_gpu(
    trial: bool, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drawn: list[str] = []
    monkeypatch.setattr(report, "draw_bars", lambda *given, title, **options: drawn.append(title))
    for engine in (turns.OURS, "torch eager"):
        record_of("small", tmp_path).say("training", **training_row(engine, 3e6, 1.0))
    draw(gather(tmp_path), tmp_path, "gpu", trial=trial)
    assert drawn == [f"Training speed on {place}"]
    assert page_of(gather(tmp_path), trial=trial).startswith(f"# On {place}\n")


@DEEP
def test_the_trial_runs_every_stage_with_nothing_but_what_an_image_with_cuda_has(tmp_path: Path):
    pytest.importorskip("torch")
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({BARE!r}))\n")
    path = os.pathsep.join([str(hidden), *filter(None, [os.environ.get("PYTHONPATH"), str(Path.cwd())])])
    results = tmp_path / "results"
    done = subprocess.run(
        [sys.executable, "-m", "bench", "gpu", "--trial", "--rounds", "1", "--results", str(results)],
        env={**os.environ, "PYTHONPATH": path, "NANOCHAT_DIR": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    stages = json.loads((results / "gpu.json").read_text())["stages"]
    reasons = {name: stage["reason"] for name, stage in stages.items()}
    assert {name: stage["outcome"] for name, stage in stages.items()} == {
        stage.name: LEFT_OUT if stage.name == "nanochat" else DONE for stage in STAGES
    }, reasons
    assert "no checkout of karpathy/nanochat" in reasons["nanochat"]
    assert {line["engine"] for line in found_in(stages, "training")} == {turns.OURS, "torch eager"}
    attention = {line["engine"]: line["attention"] for line in found_in(stages, "losses")}
    assert attention[turns.OURS] == "its own"
    assert attention["torch eager"].startswith("PyTorch's ")
    assert all(line["close"] for line in found_in(stages, "compared with the host"))
    assert {line["engine"] for line in found_in(stages, "generation")} == {turns.OURS, CALL_BY_CALL, "torch eager"}
    assert found_in(stages, "reached")
    assert len(found_in(stages, "product")) == 15
    assert {line["epilogue"] for line in found_in(stages, "epilogue")} == {"gelu", "slope of gelu"}
    assert found_in(stages, "machine")[0]["kernels"] == "numpy"  # without Numba
    assert found_in(stages, "limits")
    assert json.loads((results / "gpu" / "trace.json").read_text())["traceEvents"]
    assert {line["version"] for line in found_in(stages, "loop")} == {"ours", "reference"}
    (sanitized,) = found_in(stages, "sanitizer")
    assert (sanitized["tool"], sanitized["outcome"]) == ("none", "nothing found")
    (counted,) = {line["file"]: line for line in found_in(stages, "tests")}.values()
    assert counted["failed"] == 0 < counted["skipped"]
    assert (results / "gpu.md").read_text() in done.stdout
