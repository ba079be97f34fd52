"""`tgc runs`, `tgc compare` and `tgc train --track` as a person meets them."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import TINY, TINY_BIGRAM, Tgc
from tinygrad_chat.cli.app import run


def train_two(tgc: Tgc) -> None:
    tgc("train", *TINY, "--eval-tokens", "99", "--out", "runs/a")
    tgc("train", *TINY, "--eval-tokens", "99", "--out", "runs/b", "--lr", "0.01")


@pytest.mark.profile("ci")
def test_runs_are_listed_one_a_line_in_aligned_columns_without_colours(tgc: Tgc):
    train_two(tgc)
    code, out, err = tgc("runs")
    assert (code, err) == (0, "")
    head, *rows = out.splitlines()
    assert head.split() == [
        "run",
        "outcome",
        "val_loss",
        "steps",
        "bits/byte",
        "tokens/s",
        "time",
        "tokens",
        "parameters",
    ]
    assert [row.split()[:2] for row in rows] == [["a", "finished"], ["b", "finished"]]
    assert {len(line) for line in (head, *rows)} == {len(head)}
    assert "\x1b" not in out


@pytest.mark.profile("ci")
def test_json_is_one_object_a_line(tgc: Tgc):
    train_two(tgc)
    _, out, _ = tgc("runs", "--json")
    first, second = map(json.loads, out.splitlines())
    assert (first["run"], second["run"]) == (str(Path("runs/a")), str(Path("runs/b")))
    assert (first["outcome"], first["step"], first["tokens"]) == ("finished", 4, 64)
    assert json.loads(tgc("runs", "runs/b", "--json")[1]) == second


@pytest.mark.profile("ci")
def test_folders_that_hold_no_run_and_damaged_runs_are_named(tgc: Tgc):
    train_two(tgc)
    Path("runs/notes").mkdir()
    Path("runs/b/config.toml").write_text("[[[")
    code, out, err = tgc("runs")
    assert code == 0
    assert re.search(r"^b +damaged", out, re.MULTILINE)
    assert re.search(r"^b: damaged: .*config\.toml: not valid TOML", out, re.MULTILINE)
    assert err == "in runs there are also folders without a run: notes\n"


@pytest.mark.profile("ci")
def test_what_a_row_cannot_say_stands_below_the_table(tgc: Tgc):
    tgc("train", *TINY, "--eval-tokens", "99", "--out", "runs/a")
    shutil.copytree("runs/a", "runs/killed")
    Path("runs/killed/outcome.json").unlink()
    options = ["--optimizer", "sgd", "--lr", "1e30", "--clip", "0", "--warmup", "0", "--eval-tokens", "99"]
    _, _, failure = tgc("train", *TINY, *options, "--out", "runs/bad")
    rows, _, below = tgc("runs")[1].partition("\n\n")
    assert rows.count("\n") == 3
    killed, bad = sorted(below.splitlines(), reverse=True)
    assert killed == "killed: killed; resume with: tgc train --resume --out runs/killed"
    assert bad.split(";")[0] == f"bad: failed at {failure.removeprefix('tgc: ').split(';')[0]}"
    assert tgc("runs", "runs/a")[1].count("\n") == 2  # nothing is left to say of one that has finished


@pytest.mark.profile("ci")
def test_an_imported_run_is_shown_as_one_of_which_little_is_known(tgc: Tgc):
    shape = ("--model", "nanochat", "--depth", "1", "--width", "32", "--heads", "2", "--context", "8")
    length = ("--batch-size", "2", "--steps", "1", "--eval-tokens", "9")
    assert tgc("train", *shape, *length, "--tokenizer", "bytes", "--out", "n")[0] == 0
    assert tgc("export", "nanochat", "n", "n.safetensors")[0] == 0
    code, out, _ = tgc("import", "n.safetensors", "--out", "runs/n")
    assert (code, out.splitlines()[-1]) == (0, "fine-tune it with: tgc train --from runs/n --data TEXT")
    head, row, _, note = tgc("runs")[1].splitlines()
    cells = dict(zip(head.split(), row.split(), strict=True))
    known = ("run", "outcome", "parameters")
    assert [cells[name] for name in known[:2]] == ["n", "imported"]
    assert {value for name, value in cells.items() if name not in known} == {"-"}
    assert note == "n: imported from n.safetensors"
    page = tgc("report", "runs/n")[1]
    assert "imported from n.safetensors" in Path(page.splitlines()[1]).read_text(encoding="utf-8")
    _, _, err = tgc("train", "--resume", "--out", "runs/n")
    assert "runs/n: was imported" in err
    assert "tgc train --from runs/n" in err


def test_no_run_is_one_line_that_says_how_to_make_one(tgc: Tgc):
    assert tgc("runs") == (0, "", "no runs/ here yet; train a model with: tgc train\n")
    Path("runs").mkdir()
    code, out, err = tgc("runs")
    assert (code, out, err.count("\n")) == (0, "", 1)
    assert "tgc train" in err
    assert tgc("runs", "--json")[1] == ""


@pytest.mark.profile("ci")
@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX")
@pytest.mark.parametrize("width", [40, 60, 120])
def test_a_table_fits_a_narrow_terminal_and_keeps_what_matters(tgc: Tgc, width: int):
    tgc("train", *TINY, "--eval-tokens", "99", "--out", "runs/mini-gpt-pydoc-20260131-120000")
    shown = on_terminal(["runs"], width)
    head = shown.splitlines()[0]
    assert head.split()[:3] == ["run", "outcome", "val_loss"]
    assert ("parameters" in head) == (width == 120)
    assert max(map(len, shown.splitlines())) <= width


def on_terminal(arguments: list[str], width: int) -> str:
    """Return what a command shows on a terminal so wide, without its colours."""
    import pty

    main, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(width), "LINES": "30"}
    process = subprocess.Popen([sys.executable, "-m", "tinygrad_chat", *arguments], stdout=terminal, env=environment)
    os.close(terminal)
    shown = b""
    try:
        while piece := os.read(main, 4096):
            shown += piece
    except OSError:  # how Linux reports the end of a terminal
        pass
    os.close(main)
    assert process.wait() == 0
    assert b"\x1b[" in shown
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r\n", "\n")


@pytest.mark.profile("ci")
def test_a_comparison_is_a_table_the_shapes_of_the_curves_and_a_picture(tgc: Tgc):
    train_two(tgc)
    code, out, err = tgc("compare", "a", "runs/b", "--out", "plots")
    assert (code, err) == (0, "")
    assert out.splitlines()[:2] == ["A  a", "B  runs/b"]
    number = r"[\d.]+"
    assert re.search(rf"^val_loss at 64 tokens +{number} +{number}$", out, re.MULTILINE)
    assert re.search(rf"^val_loss after {number} m?s +{number} +{number}$", out, re.MULTILINE)
    assert re.search(r"^lr +0\.004 +0\.01$", out, re.MULTILINE)
    lines = out.splitlines()
    for axis in ("tokens", "seconds"):
        begin = next(number for number, line in enumerate(lines) if line.startswith(f"val_loss over {axis}, up to "))
        for letter, line in zip("AB", lines[begin + 1 : begin + 3], strict=True):
            assert re.fullmatch(rf"{letter}  [▁▂▃▄▅▆▇█]{{1,72}}", line)
    assert "\x1b" not in out
    assert [path.name for path in Path("plots").iterdir()] == ["compare.svg"]
    assert out.endswith(f"curves: {Path('plots/compare.svg')}\n")


@pytest.mark.profile("ci")
def test_where_tokens_differ_it_is_said_what_each_run_was_evaluated_on(tgc: Tgc):
    for tokenizer in ("characters", "bytes"):
        assert tgc("train", *TINY, "--tokenizer", tokenizer, "--out", f"runs/{tokenizer}")[0] == 0
    code, _, err = tgc("compare", "characters", "bytes")
    message = (
        "each run on its own held-out text, up to --eval-tokens; on one text: tgc eval characters bytes --data FILE"
    )
    assert (code, err) == (0, f"tgc: bits/byte: {message}\n")


@pytest.mark.profile("ci")
def test_a_comparison_leaves_a_png_where_it_is_asked_for(tgc: Tgc):
    pytest.importorskip("matplotlib")
    train_two(tgc)
    code, out, err = tgc("compare", "a", "b", "--png")
    assert (code, err) == (0, "")
    assert out.endswith("curves: compare.svg and compare.png\n")
    assert Path("compare.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.profile("ci")
def test_runs_that_failed_at_once_are_compared_all_the_same(tgc: Tgc):
    for name in ("a", "b"):
        options = ["--optimizer", "sgd", "--lr", "1e30", "--clip", "0", "--warmup", "0", "--eval-tokens", "99"]
        assert tgc("train", *TINY, *options, "--out", f"runs/{name}")[0] == 4
    code, out, err = tgc("compare", "a", "b")
    assert (code, err) == (0, "")
    assert "val_loss at 0 tokens" in out


@pytest.mark.profile("ci")
@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX")
def test_a_comparison_fits_a_narrow_terminal(tgc: Tgc):
    train_two(tgc)
    shutil.copytree("runs/a", "runs/c")
    shown = on_terminal(["compare", "a", "b", "c"], 50)
    assert max(map(len, shown.splitlines())) <= 50
    assert shown.count("best val_loss") == 1


@pytest.mark.profile("ci")
def test_without_matplotlib_only_a_png_is_refused_in_one_line_that_names_the_extra(
    tgc: Tgc, monkeypatch: pytest.MonkeyPatch
):
    train_two(tgc)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for command in (["compare", "a", "b"], ["ablate", *TINY, "--vary", "tied", "--seeds", "1"]):
        expected = "tgc: --png: needs matplotlib, the extra plots: pip install matplotlib\n"
        before = sorted(Path().rglob("*"))
        assert tgc(*command, "--png") == (2, "", expected)
        assert sorted(Path().rglob("*")) == before
        assert tgc(*command)[0] == 0


@pytest.mark.profile("ci")
def test_names_of_runs_are_texts_and_nothing_else(tgc: Tgc):
    name = "[red]b :smile:"
    tgc("train", *TINY, "--eval-tokens", "99", "--out", f"runs/{name}")
    tgc("train", *TINY, "--eval-tokens", "99", "--out", "runs/a")
    assert f"\n{name}  finished" in tgc("runs")[1]
    assert tgc("compare", "a", name)[1].splitlines()[1] == f"B  {name}"


@pytest.mark.profile("ci")
def test_a_curve_is_written_in_digits_where_the_terminal_has_no_blocks(tgc: Tgc, monkeypatch: pytest.MonkeyPatch):
    train_two(tgc)
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="replace")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", screen)
        assert run(["compare", "a", "b"]) == 0
    screen.seek(0)
    assert re.search(r"^A  [1-8]{72}$", screen.read(), re.MULTILINE)


MISTAKES = [
    ("compare", "missing argument"),
    ("compare a", "compare: expected at least two runs, received 1"),
    ("compare a a", "compare: a: is given twice; name each run once"),
    ("compare a runs/a", "compare: runs/a: is the same run as a; name each run once"),
    ("compare a aa", "compare: aa: no run there; did you mean runs/a?"),
    ("compare a runs", "compare: runs: is a folder of runs; expected one of them, such as runs/a"),
    ("compare a runs/a/checkpoints", "compare: runs/a/checkpoints: is part of runs/a; give that path instead"),
    ("report runs", "report: runs: is a folder of runs; expected one of them, such as runs/a"),
    (
        "runs runs/a/report.html",
        "runs/a/report.html: is a file; expected the folder of a run or of a checkpoint, such as",
    ),
    ("sample --checkpoint runs", "runs: is a folder of runs; expected one of them, such as runs/a"),
    ("sample --checkpoint runs/aa", "runs/aa: no run there; did you mean runs/a?"),
    (
        "sample --checkpoint runs/a/report.html",
        "is a file; expected the folder of a run or of a checkpoint, such as runs/a",
    ),
    ("sample --checkpoint runs/a/samples", "runs/a/samples: is part of runs/a; give that path instead"),
    (
        "sample --checkpoint runs/a/checkpoints/step-000004/weights.safetensors",
        "such as runs/a/checkpoints/step-000004",
    ),
    ("train --resume --out runs", "runs: is a folder of runs; expected one of them, such as runs/a"),
    ("train --out runs", "--out runs: is a folder of runs; expected a new one, as in --out runs/NAME"),
    ("compare a elsewhere", "compare: elsewhere: no run there; expected a run's folder or its name below runs/"),
    ("compare a broken", "compare: broken: has no config.toml; leave it out"),
    ("compare" + " a" * 27, "compare: expected at most 26 runs, received 27"),
    ("runs nowhere", "nowhere: no such folder; expected one that holds runs"),
    ("runs runs more", "unexpected extra argument"),
    ("train --track paper", "--track: expected one of tensorboard, trackio, wandb, received 'paper'"),
    ("train --track wandb", "--track wandb: needs wandb, the extra wandb: pip install wandb"),
    ("train --resume --out runs/a --track wandb", "--track wandb: needs wandb, the extra wandb"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run; a test takes a copy."""
    path = tmp_path_factory.mktemp("trained") / "a"
    assert run(["train", *TINY_BIGRAM, "--eval-tokens", "99", "--quiet", "--out", str(path)]) == 0
    return path


@pytest.mark.parametrize(("command", "message"), MISTAKES, ids=[command[:40] for command, _ in MISTAKES])
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(
    tgc: Tgc, trained: Path, monkeypatch: pytest.MonkeyPatch, command: str, message: str
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    shutil.copytree(trained, "runs/a")
    Path("runs/broken/checkpoints").mkdir(parents=True)
    Path("runs/broken/log.jsonl").touch()
    os.utime("runs/broken/log.jsonl", (0, 0))  # the newest is the one that is suggested
    before = sorted(Path().rglob("*"))
    code, out, err = tgc(*command.split())
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("tgc: ")
    assert err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before  # above all no folder for a run that cannot be


@pytest.mark.profile("ci")
def test_tracking_leaves_json_alone_on_stdout(tgc: Tgc):
    pytest.importorskip("tensorboardX")
    code, out, err = tgc("train", *TINY, "--eval-tokens", "99", "--track", "tensorboard", "--json", "--out", "r")
    assert code == 0
    assert json.loads(out)["run"] == "r"
    assert f"tracker: tensorboard --logdir {Path('r/tensorboard')}" in err
    assert [path.name.startswith("events.out") for path in Path("r/tensorboard").iterdir()] == [True]


@pytest.mark.profile("ci")
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such links")
def test_a_run_that_is_a_circle_of_links_hides_no_other(tgc: Tgc):
    for name in ("a", "b"):
        assert tgc("train", *TINY_BIGRAM, "--data", __file__, "--out", f"runs/{name}")[0] == 0
    Path("runs/round").symlink_to("round")
    code, text, _ = tgc("runs")
    assert code == 0
    assert {"a", "b"} <= {line.split()[0] for line in text.splitlines() if line}
    for command in (("report", "round"), ("compare", "a", "round"), ("compare", "a", "b", "round")):
        code, _, said = tgc(*command)
        assert code in (0, 2, 3)
        assert "Traceback" not in said
