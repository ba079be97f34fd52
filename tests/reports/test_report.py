"""The report says all that a run's folder holds, whatever became of the run, and needs nothing but itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.cli.chatting import save_run
from tinygrad_chat.cli.app import run as tgc
from tinygrad_chat.errors import DivergedError
from tinygrad_chat.formatting import printable
from tinygrad_chat.reports.charts import loss_chart, other_charts
from tinygrad_chat.reports.content import environment_text, read_report
from tinygrad_chat.reports.writing import write_report
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.training.events import Ended, Logged
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, resume_run

Start = Callable[..., Run]

HOSTILE = '</pre></td><script>alert("&")</script>\x00\x1b[31m\ufffe ```` | **x**'


def finish(run: Run, stop_after: int | None = None) -> None:
    for _ in train(run, should_stop=lambda: run.progress.step == stop_after):
        pass


def report_of(folder: RunFolder) -> tuple[str, str]:
    """Return the page, of which it makes sure that it is whole, and the Markdown as they stand in the folder."""
    page, markdown = ((folder.path / f"report.{kind}").read_bytes().decode() for kind in ("html", "md"))
    ElementTree.fromstring(page)
    return page, markdown


def words_of(page: str) -> str:
    """Return what a reader sees of a page."""
    root = ElementTree.fromstring(re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.DOTALL))
    return " ".join(" ".join(root.itertext()).split())


def write_log(folder: RunFolder, *records: dict[str, Any]) -> None:
    folder.log.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_a_run_ends_with_a_report_of_all_there_is_to_say(start: Start):
    run = start(log_every=1)
    for event in train(run):
        if isinstance(event, Ended):
            break  # it is written before the end is told
    folder = run.folder
    best = min((line for line in folder.records() if "val_loss" in line), key=lambda line: line["val_loss"])
    (environment,) = folder.environments()
    page, markdown = report_of(folder)
    words = words_of(page)
    for text in (words, markdown.replace("\\", "")):
        assert "mini-gpt on text.txt" in text
        assert "finished: all 6 steps" in text
        assert f"{run.progress.best_loss:.4f}" in text
        assert f"{best['val_bpb']:.4f}" in text
        assert f"{best['val_perplexity']:.4g}" in text
        assert f"{run.model.parameters().size:,}" in text
        for name in ("parameters", "tokens", "training time", "tokens/s", "memory"):
            assert name in text
        for name in run.config.used_settings():
            assert name in text
        for name, value in environment.items():
            assert name in text
            assert " ".join(environment_text(value).split()) in text
        assert f"tgc sample --checkpoint {folder.checkpoints / f'step-{run.progress.best_step:06d}'}" in text
        assert f"tgc train --resume --out {folder.path} --steps 12" in text
    for step, sample in read_report(folder).samples:
        visible = " ".join(printable(sample).split())
        assert visible in words
        assert visible in " ".join(markdown.split())
        assert f"step {step}" in words
    pictures = re.findall(r'<svg[^>]*aria-label="([^",]+)', page)
    assert pictures == ["Loss", "Loss", "Bits per byte", "Learning rate", "Gradient norm", "Speed"]
    assert f"Best checkpoint: {folder.checkpoints}" in words


def test_curves_are_the_log_s_own_numbers(start: Start):
    run = start(log_every=1)
    finish(run)
    report = read_report(run.folder)
    records = run.folder.records()
    drawn = {
        curve.name: list(curve.points)
        for chart in (loss_chart(report), *other_charts(report))
        for curve in chart.series
    }
    for name, key in (("training", "loss"), ("learning rate", "lr"), ("gradient norm", "grad_norm")):
        assert drawn[name] == [(line["step"], line[key]) for line in records if key in line]
    evaluations = [line for line in records if "val_loss" in line]
    assert loss_chart(report).series[1].points == [(line["step"], line["val_loss"]) for line in evaluations]
    speeds = [(line["step"], line["tokens_per_second"]) for line in run.folder.timings() if "tokens_per_second" in line]
    assert drawn["tokens/s"] == speeds


def test_the_page_needs_nothing_but_itself(start: Start):
    run = start()
    finish(run)
    page, _ = report_of(run.folder)
    addresses = set(re.findall(r"\w+://[^\"'\s]+", page))
    assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml"}
    assert not re.findall(r"\b(?:src|href)=|@import|url\(|<link|<iframe", page)
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page


def test_it_can_be_written_anew_from_the_folder_s_files_alone(start: Start):
    run = start()
    finish(run)
    paths = [run.folder.path / name for name in ("report.html", "report.md")]
    before = [path.read_bytes() for path in paths]
    for path in paths:
        path.unlink()
    assert write_report(RunFolder(run.folder.path)) == paths
    assert [path.read_bytes() for path in paths] == before


@pytest.mark.profile("ci")
def test_it_needs_no_plotting_library():
    module = "tinygrad_chat.reports.writing"
    program = f"import sys, {module}; sys.exit(bool({{'matplotlib', 'rich', 'typer'}} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.profile("ci")
def test_a_long_log_makes_a_small_page_on_which_a_spike_survives(start: Start):
    run = start()
    finish(run)
    write_log(
        run.folder, *({"step": step, "loss": 9.0 if step == 7777 else 2.0 + step % 7 / 10} for step in range(20_000))
    )
    write_report(run.folder)
    page, _ = report_of(run.folder)
    assert len(page) < 400_000
    figure = re.findall(r'data-y="([^"]+)".*?data-name="as logged"><path[^>]* d="([^"]+)"', page, re.DOTALL)[0]
    _, high, _, top, _ = map(float, figure[0].split())
    rows = [float(pair.split()[1]) for pair in re.findall(r"[\d.]+ [\d.]+", figure[1])]
    assert high > 9
    assert min(rows) < top + 20


# --- runs that did not finish


def test_an_interrupted_run_says_how_to_go_on(start: Start):
    run = start()
    finish(run, stop_after=4)
    page, markdown = report_of(run.folder)
    assert "interrupted after 4 of 6 steps, with a checkpoint" in words_of(page)
    assert "**interrupted after 4 of 6 steps, with a checkpoint**" in markdown
    assert f"tgc train --resume --out {run.folder.path}\n" in markdown
    assert f"{4 * 3 * 8:,}" in markdown  # tokens, though no line of the log is of the last step


def test_a_failed_run_says_why(start: Start):
    run = start(optimizer="sgd", lr=1e30, clip=0.0, warmup=0)
    with pytest.raises(DivergedError, match="the loss is") as error:
        finish(run)
    page, markdown = report_of(run.folder)
    assert f"failed: {error.value}" in words_of(page)
    assert str(error.value)[:30] in markdown
    assert "--on-nan rollback" in markdown


def test_a_killed_run_and_one_that_goes_on_have_reports_too(start: Start):
    run = start()
    for event in train(run):
        if isinstance(event, Logged) and event.record["step"] == 3:
            write_report(run.folder)
            assert "running: 3 of 6 steps so far" in words_of(report_of(run.folder)[0])
            break
    write_report(run.folder)
    page, markdown = report_of(run.folder)
    assert "killed after 3 of 6 steps or a little later" in words_of(page)
    assert "killed after 3 of 6 steps or a little later" in markdown


@pytest.mark.parametrize("lines", [0, 1, 2])
def test_a_run_with_hardly_a_line_of_log_has_a_report(start: Start, lines: int):
    run = start(log_every=1)
    finish(run)
    for file in (run.folder.log, run.folder.timing):
        file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:lines]))
    run.folder.outcome.unlink()
    write_report(run.folder)
    page, markdown = report_of(run.folder)
    assert ("<figure>" in page) == ("## Validation loss" in markdown) == (lines > 0)
    assert "batch_size" in words_of(page)


@pytest.mark.parametrize("name", ["config.toml", "environment.json", "log.jsonl", "timing.jsonl", "outcome.json"])
@pytest.mark.parametrize("content", [None, b"[", b"\xff\x00{", b"[1]\n", b'{"step": 1, "loss": "much", "lr": NaN}\n'])
def test_a_damaged_file_does_not_keep_the_rest_from_being_told(start: Start, name: str, content: bytes | None):
    run = start()
    finish(run)
    if content is None:
        (run.folder.path / name).unlink()
    else:
        (run.folder.path / name).write_bytes(content)
    write_report(run.folder)
    page, _ = report_of(run.folder)
    assert ("tinygrad_chat" in words_of(page)) == (name != "environment.json")
    assert ("batch_size" in words_of(page)) == (name != "config.toml")
    if name == "config.toml":
        assert "damaged: " in words_of(page)


def test_an_empty_folder_has_a_report_that_says_so(tmp_path: Path):
    write_report(RunFolder(tmp_path))
    page, markdown = report_of(RunFolder(tmp_path))
    assert "damaged: has no config.toml" in words_of(page)
    assert "has no config.toml" in markdown


# --- what happened on the way


def test_rollbacks_and_skipped_spikes_and_resumptions_stand_on_the_loss_curve_and_in_words(start: Start):
    run = start()
    finish(run, stop_after=3)
    finish(resume_run(run.folder.path, {}))
    lines = [{"step": step, "loss": 3.0} for step in range(6)]
    lines[4]["skipped_spike"] = 5.25
    write_log(run.folder, *lines[:2], {"step": 2, "rolled_back_from": 5, "reason": "the loss is nan"}, *lines[2:])
    chart = loss_chart(read_report(run.folder))
    assert [(mark.name, mark.x, mark.until) for mark in chart.marks] == [("resumed", 3, None), ("rolled back", 2, 5)]
    assert [curve.points for curve in chart.series if curve.name == "skipped"] == [[(4, 3.0)]]
    write_report(run.folder)
    page, markdown = report_of(run.folder)
    for text in (words_of(page), markdown):
        assert "rolled back here from step 5, continuing with other batches: the loss is nan" in text
        assert "update skipped: the loss was 5.2 standard deviations" in text
        assert "resumed from here" in text
    assert page.count(' band"') == 2  # once in each of the two drawings
    assert "ring" in page


# --- texts that try to break out


def test_nothing_in_a_folder_can_leave_its_place(start: Start):
    run = start()
    finish(run)
    folder = run.folder
    (folder.samples / "step-000006.txt").write_text(HOSTILE, encoding="utf-8")
    environment = {"from_step": 0, HOSTILE: HOSTILE, "blas": [{HOSTILE: HOSTILE}], "arguments": [HOSTILE]}
    folder.environment.write_text(json.dumps([environment, {**environment, "from_step": 3}]))
    write_log(folder, {"step": 2, "rolled_back_from": 4, "reason": HOSTILE}, {"step": 2, "loss": 1.0})
    folder.outcome.write_text(json.dumps({"outcome": "failed", "step": 4, "reason": HOSTILE}))
    write_report(folder)
    page, markdown = report_of(folder)
    assert page.count("<script") == page.count("</script>") == 1
    assert words_of(page).count('alert("&")') >= 8
    assert not re.findall("[\x00-\x08\x0b-\x1f\ufffe]", page + markdown)
    (fenced,) = re.findall(r"^`````text\n(.*?)\n`````$", markdown, re.DOTALL | re.MULTILINE)
    assert fenced.startswith("</pre></td><script>")
    outside = markdown.replace(fenced, "")
    assert "<script" not in outside.replace("\\<", "")
    for line in outside.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 4)


def test_a_sample_s_spaces_and_lines_are_kept(start: Start):
    run = start()
    finish(run)
    text = "\n  two spaces\n\n\tand a tab   "
    (run.folder.samples / "step-000006.txt").write_text(text, encoding="utf-8", newline="")
    write_report(run.folder)
    page, markdown = report_of(run.folder)
    assert f"<pre>\n{text}</pre>" in page  # a browser drops the line break after <pre>
    assert f"```text\n{text}\n```" in markdown


def test_of_many_samples_the_first_the_last_and_some_between_are_shown(start: Start):
    run = start()
    finish(run)
    for step in range(100):
        run.folder.write_sample(step, "x" * 10_000 if step == 99 else f"text {step}")
    (run.folder.samples / "notes.txt").touch()
    samples = read_report(run.folder).samples
    assert [step for step, _ in samples] == [0, 20, 40, 59, 79, 99]
    assert samples[2][1] == "text 40"
    assert samples[-1][1] == "x" * 4000 + "…"


# --- tgc report


def test_tgc_report_writes_the_newest_run_s_report_or_that_of_the_one_that_is_named(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for age, name in ((100, "runs/a"), (200, "runs/b")):
        run = start(name)
        finish(run)
        for checkpoint in run.folder.checkpoints.iterdir():
            os.utime(checkpoint, (age, age))
        for kind in ("html", "md"):
            (run.folder.path / f"report.{kind}").unlink()
    monkeypatch.chdir(tmp_path)
    for arguments, name in (([], "b"), (["a"], "a"), (["runs/a"], "a")):
        assert tgc(["report", *arguments]) == 0
        paths = [Path("runs", name, f"report.{kind}") for kind in ("html", "md")]
        assert capsys.readouterr().out.splitlines() == [str(path) for path in paths]
        for path in paths:
            path.unlink()


def test_tgc_report_of_what_is_no_run_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    Path("notes").mkdir()
    assert tgc(["report", "notes"]) == 2
    expected = "tgc: report: notes: no run there; expected a run's folder or its name below runs/; see tgc runs\n"
    assert capsys.readouterr().err == expected
    assert list(Path("notes").iterdir()) == []
    assert tgc(["report"]) == 2
    assert "train a model first with: tgc train" in capsys.readouterr().err


@pytest.mark.parametrize(("conversations", "command"), [(True, "tgc chat"), (False, "tgc sample")])
def test_a_model_that_was_taught_to_chat_is_talked_to(tmp_path, conversations, command):
    run = save_run(tmp_path / "r", conversations=conversations)
    words, suggested = read_report(run).commands[0]
    assert suggested == f"{command} --checkpoint {run.path}"
    assert words.startswith("talk to the newest" if conversations else "write text with the newest")
