"""A run whose records anybody may have written: what does not fit is named or left out, and hides no other run."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from tests.tiny import tiny_settings
from tinygrad_chat.reports.comparison import compare_runs
from tinygrad_chat.reports.content import read_report
from tinygrad_chat.reports.html import page
from tinygrad_chat.reports.markdown import markdown
from tinygrad_chat.reports.samples import LONGEST_SAMPLE
from tinygrad_chat.reports.summary import find_runs, summarize_run
from tinygrad_chat.reports.writing import write_report
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.training.facts import resolve_with_facts
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import start_run

NOTHING = ["", "[]", "{}", "null", "[1]", "[" * 100_000, "[" * 950 + "]" * 950, '"\\ud800"']
NUMBERS = ["NaN", "-1", "1e299", "1e400", str(2**63), "9" * 5000, '"3"', "[]"]
OUTCOME = '{{"outcome": {}, "step": {}, "seconds": {}, "reason": {}}}'

CONTENTS = {
    "outcome.json": [
        *NOTHING,
        *(OUTCOME.format('"finished"', number, "1.5", '""') for number in NUMBERS),
        *(OUTCOME.format('"finished"', 6, number, '""') for number in NUMBERS),
        *(OUTCOME.format(outcome, 6, 1.5, '""') for outcome in ('"happy"', "[]")),
        *(OUTCOME.format('"failed"', 6, 1.5, reason) for reason in ("null", '"\\ud800"')),
    ],
    "environment.json": [
        *NOTHING,
        *(f'[{{"from_step": {number}}}]' for number in NUMBERS),
        *(f'[{{"from_step": 0, "numpy": {value}}}]' for value in ("NaN", "[" * 950 + "]" * 950, '"\\ud800"', "[null]")),
    ],
    "log.jsonl": [
        *NOTHING,
        *(f'{{"step": {number}, "loss": 1.0}}' for number in NUMBERS),
        *(f'{{"step": 6, "loss": {number}, "val_loss": {number}, "val_bpb": {number}}}' for number in NUMBERS),
        *(f'{{"step": 6, "grad_norm": {number}, "lr": {number}}}' for number in NUMBERS[:4]),
        *(f'{{"step": 6, "skipped_spike": {number}, "loss": 1.0}}' for number in NUMBERS[:4]),
        *(f'{{"step": 3, "rolled_back_from": {number}, "reason": {number}}}' for number in ("9", "1e299", '"3"')),
    ],
    "timing.jsonl": [
        *NOTHING,
        *(f'{{"step": {number}, "seconds": 1.0}}' for number in NUMBERS),
        *(f'{{"step": 6, "seconds": {number}}}' for number in NUMBERS),
        *(f'{{"step": 6, "seconds": 1.0, "tokens_per_second": {number}}}' for number in NUMBERS[:4]),
        *(f'{{"step": 6, "seconds": 1.0, "memory": {number}}}' for number in NUMBERS[:4]),
    ],
    "config.toml": [*NOTHING, "steps = nan", "lr = 1e400", "steps = 2020-01-01", "[data]\nsource = [[]]", "a.b.c = 1"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    """A folder of two finished runs, a and b."""
    folder = tmp_path_factory.mktemp("runs")
    for name, rate in (("a", 0.01), ("b", 0.02)):
        run = start_run(resolve_with_facts(tiny_settings(data=str(text), lr=rate))[0], folder / name)
        for _ in train(run):
            pass
    return folder


@pytest.mark.parametrize(("name", "content"), [(name, content) for name in CONTENTS for content in CONTENTS[name]])
def test_what_a_file_cannot_say_is_told_in_one_line_and_hides_no_run(runs: Path, name: str, content: str):
    """In a log it stands behind whole lines, elsewhere alone."""
    a, whole = runs / "a", (runs / "a" / name).read_bytes()
    try:
        (a / name).write_bytes((whole if name.endswith("jsonl") else b"") + content.encode() + b"\n")
        first, second = find_runs(runs)[0]
        summary, other = (first, second) if first.path == a else (second, first)
        assert other.outcome == "finished"
        for said in (summary.reason, summary.left_out):
            assert "\n" not in said
            assert len(said) < 250
        assert summary.outcome == "finished" or summary.reason.startswith((f"{name}: ", f"{a / name}: "))
        assert all(path.stat().st_size for path in write_report(RunFolder(a)))
        json.dumps(dataclasses.asdict(dataclasses.replace(summary, path="")), allow_nan=False)
        if summary.outcome == "finished":
            assert compare_runs({"a": a, "b": runs / "b"}).reached_by_all("seconds") < 1e9
    finally:
        (a / name).write_bytes(whole)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "log.jsonl",
            '{"step": 6, "val_loss": NaN}',
            "log.jsonl, line 8: val_loss: expected a finite number, received nan",
        ),
        ("log.jsonl", '{"step": -1}', "log.jsonl, line 8: step: expected at least 0, received -1"),
        ("timing.jsonl", "[", "timing.jsonl, line 8: not valid JSON (Expecting value: line 1 column 2 (char 1))"),
        (
            "timing.jsonl",
            f'{{"step": 6, "seconds": {2**63}}}',
            "timing.jsonl, line 8: seconds: expected at most 9007199254740992, received 9223372036854775808",
        ),
    ],
)
def test_lines_that_are_left_out_are_told_of(runs: Path, name: str, content: str, message: str):
    whole = (runs / "a" / name).read_bytes()
    try:
        (runs / "a" / name).write_bytes(whole + content.encode() + b"\n")
        assert summarize_run(runs / "a").left_out == message
        assert f"left out here: {message}" in read_report(RunFolder(runs / "a")).outcome
        (runs / "a" / name).write_bytes(whole + content[:3].encode())  # as a crash leaves it
        assert summarize_run(runs / "a").left_out == ""
    finally:
        (runs / "a" / name).write_bytes(whole)


def test_a_sample_without_end_is_read_to_where_it_is_shown(runs: Path):
    sample = runs / "a" / "samples" / "step-000007.txt"
    with sample.open("wb") as file:
        file.truncate(1 << 40)
    (_, text) = read_report(RunFolder(runs / "a")).samples[-1]
    sample.unlink()
    assert len(text) == LONGEST_SAMPLE + 1


def test_large_numbers_are_written_by_their_powers_of_ten(runs: Path):
    log = runs / "a" / "log.jsonl"
    whole = log.read_bytes()
    try:
        values = dict.fromkeys(("val_loss", "val_bpb", "skipped_spike"), 9e29) | {"val_perplexity": 9e29}
        log.write_text(json.dumps({"step": 0, "sources": {"b": values}, **values}) + "\n", encoding="utf-8")
        report = read_report(RunFolder(runs / "a"))
        for written in (page(report), markdown(report)):
            assert "9e29" in written
            assert re.search("[0-9,]{20}", re.sub("<svg.*?</svg>", "", written, flags=re.DOTALL)) is None
    finally:
        log.write_bytes(whole)
