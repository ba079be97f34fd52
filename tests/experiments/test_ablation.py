"""Ablations: every cell and seed once, wherever it was stopped, and numbers that are what they say."""

from __future__ import annotations

import csv
import json
import os
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import TINY, tiny_settings
from tinygrad_chat.errors import ConfigError, FormatError, UsageError
from tinygrad_chat.experiments.ablation import Ablation, folder_of, label, parse_variation
from tinygrad_chat.experiments.report import Cell, collect, markdown, write_plot, write_reports
from tinygrad_chat.experiments.running import run_ablation
from tinygrad_chat.training.events import Ended, Stepped
from tinygrad_chat.training.facts import resolve_with_facts


@pytest.fixture
def ablation(text: Path) -> Ablation:
    settings = tiny_settings(data=str(text), model="bigram")
    return Ablation(settings, parse_variation("norm=layernorm|none,tied"), seeds=2)


def finish(ablation: Ablation, folder: Path, stop_after: int | None = None) -> int:
    """Run it, at most `stop_after` updates; return how many there were."""
    updates: list[int] = []
    for _, event in run_ablation(ablation, folder, should_stop=lambda: len(updates) == stop_after):
        if isinstance(event, Stepped):
            updates.append(event.step)
    return len(updates)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_what_varies_takes_all_choices_or_those_given():
    assert parse_variation("norm,tied") == {"norm": ["layernorm", "rmsnorm", "none"], "tied": [True, False]}
    assert parse_variation("lr=0.001|0.01, batch-size=2|4") == {"lr": [0.001, 0.01], "batch_size": [2, 4]}
    assert parse_variation("lr=0.1|0.1,data=a.txt|b.txt") == {"lr": [0.1], "data": ["a.txt", "b.txt"]}
    assert parse_variation("lr-schedule=1-sqrt|cosine,tied=off") == {
        "lr_schedule": ["1-sqrt", "cosine"],
        "tied": [False],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nope", "expected options of tgc train, as in norm,tied or lr=0.001|0.01, received 'nope'"),
        ("lr=0.1,0.2", "received '0.2'"),
        ("seed=1|2", "received 'seed'"),
        ("lr", "--vary lr: expected values, as in lr=A|B"),
        ("steps=few", "--vary steps"),
        ("width=[[[[", "--vary width: not valid TOML"),
        ("width=" + "[" * 5000, "--vary width: is nested too deeply"),
        ("width=" + "1" * 5000, "--vary width: a number has too many digits"),
        ("width=0x" + "f" * 5000, "received <an integer of 20,000 bits>"),
        ("width=[8]", "--vary width: width: expected int, received [8]"),
        ("width=8\nheads=2", r"--vary width: expected a value, received '8\nheads=2'"),
        ("width=8\n[model]\nheads=2", "--vary width: "),
        ("width={a=1}", "--vary width: "),
    ],
)
def test_what_cannot_vary_is_refused(text: str, message: str):
    with pytest.raises(ConfigError) as caught:
        parse_variation(text)
    assert message in str(caught.value)


def test_values_of_any_characters_may_vary():
    assert parse_variation("data=\N{GRINNING FACE}.txt|b") == {"data": ["\N{GRINNING FACE}.txt", "b"]}


@pytest.mark.parametrize(("varied", "seeds"), [({}, 10**9), ({"lr": [0.1] * 200, "clip": [1.0] * 200}, 1)])
def test_more_runs_than_anybody_waits_for_are_refused_at_once(varied: dict[str, Any], seeds: int):
    with pytest.raises(UsageError, match=r"expected at most 10,000 runs in all, received .* vary fewer settings"):
        Ablation({}, varied, seeds)


@pytest.mark.profile("ci")
def test_every_cell_is_trained_once_with_every_seed(ablation: Ablation, tmp_path: Path):
    assert finish(ablation, tmp_path) == 8 * TINY["steps"]
    found = [(row["norm"], row["tied"], row["seed"]) for row in rows(tmp_path)]
    assert found == [(norm, tied, seed) for norm in ("layernorm", "none") for tied in (True, False) for seed in (1, 2)]
    for row in rows(tmp_path):
        log = (tmp_path / "runs" / f"{row['cell']},seed={row['seed']}" / "log.jsonl").read_text().splitlines()
        assert row["val_loss"] == json.loads(log[-1])["val_loss"]
    assert finish(ablation, tmp_path) == 0  # nothing is left to do


@pytest.mark.profile("ci")
@pytest.mark.parametrize("stop_after", [0, 1, 6, 9, 30])
def test_interrupted_anywhere_it_goes_on_where_it_stopped(ablation: Ablation, tmp_path: Path, stop_after: int):
    finish(ablation, tmp_path / "whole")
    first = finish(ablation, tmp_path / "stopped", stop_after)
    assert first == stop_after
    assert first + finish(ablation, tmp_path / "stopped") == 8 * TINY["steps"]
    for whole, stopped in zip(rows(tmp_path / "whole"), rows(tmp_path / "stopped"), strict=True):
        assert {**whole, "seconds": 0} == {**stopped, "seconds": 0}


@pytest.mark.profile("ci")
def test_more_seeds_may_follow_but_not_other_settings(ablation: Ablation, tmp_path: Path):
    finish(ablation, tmp_path)
    more = Ablation(ablation.settings, ablation.varied, seeds=3)
    assert finish(more, tmp_path) == 4 * TINY["steps"]
    other = Ablation({**ablation.settings, "steps": 7}, ablation.varied, seeds=2)
    with pytest.raises(UsageError, match=r"holds an ablation with other settings \(steps"):
        finish(other, tmp_path)


def test_a_cell_that_cannot_be_trained_is_refused_before_any_other(text: Path, tmp_path: Path):
    ablation = Ablation({**TINY, "data": str(text)}, {"heads": [2, 3]}, seeds=1)
    with pytest.raises(ConfigError, match="--heads: expected a divisor"):
        finish(ablation, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("vary", "settings"),
    [
        ("model=bigram|mini-gpt", {"layers": 1}),
        ("optimizer=adamw|sgd", {"beta2": 0.9}),
        ("optimizer=adamw|sgd", {"momentum": 0.8}),
        ("mode=tensor|scalar", {"dropout": 0.2}),
    ],
)
def test_what_plays_a_part_in_some_cell_may_be_shared_by_all(vary: str, settings: dict[str, Any], text: Path):
    ablation = Ablation({"data": str(text), **settings}, parse_variation(vary), seeds=1)
    used = [ablation.config(*run).used_settings() for run in ablation.runs()]
    assert [settings.items() <= each.items() for each in used].count(True) == 1


@pytest.mark.parametrize(
    ("vary", "settings", "message"),
    [
        ("optimizer=adamw|muon", {"momentum": 0.8}, "--momentum: has no effect with --optimizer adamw"),
        ("model=bigram|mini-gpt,layers=1|2", {}, "--layers: has no effect with --model bigram"),
    ],
)
def test_what_plays_a_part_in_no_cell_or_is_varied_in_vain_is_refused(
    vary: str, settings: dict[str, Any], message: str, text: Path
):
    ablation = Ablation({"data": str(text), **settings}, parse_variation(vary), seeds=1)
    with pytest.raises(ConfigError, match=message):
        ablation.config(*ablation.runs()[0])


def test_former_names_vary_too():
    assert parse_variation("accumulate=1|2,keep=3") == {"grad_accumulation": [1, 2], "keep_checkpoints": [3]}


@pytest.mark.profile("ci")
def test_a_folder_of_version_0_1_goes_on(ablation: Ablation, tmp_path: Path):
    finish(ablation, tmp_path, stop_after=6)
    path = tmp_path / "ablation.json"
    cells = json.loads(path.read_text())["settings"]
    for settings in cells.values():
        settings["accumulate"], settings["keep"] = settings.pop("grad_accumulation"), settings.pop("keep_checkpoints")
        settings |= {"layers": 0, "momentum": 0.9, "embedding_lr": None, "positions": "none"}
    path.write_text(json.dumps({"settings": cells}))
    assert finish(ablation, tmp_path) == 7 * TINY["steps"]


@pytest.mark.profile("ci")
def test_a_cell_is_resolved_once(ablation: Ablation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    resolved: list[dict[str, Any]] = []

    def counted(settings: dict[str, Any], **options: Any) -> Any:
        resolved.append(settings)
        return resolve_with_facts(settings, **options)

    monkeypatch.setattr("tinygrad_chat.experiments.ablation.resolve_with_facts", counted)
    finish(ablation, tmp_path)
    assert len(resolved) == len(ablation.cells())


@pytest.mark.profile("ci")
def test_means_and_intervals_are_those_of_the_runs(ablation: Ablation, tmp_path: Path):
    finish(ablation, tmp_path)
    cells = collect(ablation, tmp_path)
    assert [cell.mean for cell in cells] == sorted(cell.mean for cell in cells)
    for cell in cells:
        losses = [row["val_loss"] for row in rows(tmp_path) if row["cell"] == label(cell.choices)]
        assert cell.mean == pytest.approx(statistics.fmean(losses))
        # For two runs, Student's t is 12.706 and the standard error half their distance.
        assert cell.interval == pytest.approx(12.706 * abs(losses[0] - losses[1]) / 2)
    assert Cell({}, 1, [2.0], []).interval is None
    assert Cell({}, 1, [1.0, 2.0, 3.0], []).interval == pytest.approx(4.303 / 3**0.5)


@pytest.mark.profile("ci")
def test_reports_say_what_was_found(ablation: Ablation, tmp_path: Path):
    finish(ablation, tmp_path)
    cells = collect(ablation, tmp_path)
    write_reports(cells, tmp_path, title="A title")
    with (tmp_path / "results.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(line["val_loss"]) for line in table] == [row["val_loss"] for row in rows(tmp_path)]
    text = (tmp_path / "results.md").read_text()
    assert text.startswith("# A title\n\n| norm | tied | val_loss |")
    best = cells[0]
    line = f"| {best.mean:.4f} | ± {best.interval:.4f} | {best.mean_bits_per_byte:.4f} | 2 | {best.parameters:,} |"
    assert line in text


@pytest.mark.profile("ci")
def test_the_plot_is_an_svg_and_where_it_is_asked_for_a_png(tmp_path: Path):
    cells = [Cell({"tied": True}, 1, [1.0, 2.0], []), Cell({"tied": False}, 1, [], [], 1)]
    write_plot(cells, tmp_path, title="A title")
    assert [path.name for path in tmp_path.iterdir()] == ["results.svg"]
    picture = (tmp_path / "results.svg").read_text(encoding="utf-8")
    assert "tied=on" in picture
    assert "tied=off" not in picture  # it diverged, and has no place on the axis
    pytest.importorskip("matplotlib")
    write_plot(cells, tmp_path, title="A title", png=True)
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.profile("ci")
def test_a_second_process_in_one_folder_is_refused(ablation: Ablation, tmp_path: Path):
    runs = run_ablation(ablation, tmp_path)
    next(runs)
    with pytest.raises(UsageError, match=f"process {os.getpid()} is using it"):
        finish(ablation, tmp_path)
    del runs  # as the end of the process does, this lets go
    assert finish(ablation, tmp_path) == 8 * TINY["steps"]


def test_the_default_folder_says_what_varies(ablation: Ablation):
    assert folder_of(ablation) == Path("ablations/bigram-tensor-norm-tied")


def test_an_interrupted_run_is_not_a_result(ablation: Ablation, tmp_path: Path):
    ends = [
        event for _, event in run_ablation(ablation, tmp_path, should_stop=lambda: True) if isinstance(event, Ended)
    ]
    assert [end.interrupted for end in ends] == [True]
    assert not (tmp_path / "results.jsonl").exists()


def test_a_cell_that_diverges_is_a_result_and_the_others_go_on(text: Path, tmp_path: Path):
    settings = tiny_settings(data=str(text), model="bigram", optimizer="sgd", clip=0.0, warmup=0)
    ablation = Ablation(settings, {"lr": [1e300, 0.1]}, seeds=2)
    finish(ablation, tmp_path)
    assert [row["diverged"] for row in rows(tmp_path)] == [True, True, False, False]
    cells = collect(ablation, tmp_path)
    assert [(cell.choices["lr"], len(cell.losses), cell.diverged) for cell in cells] == [(0.1, 2, 0), (1e300, 0, 2)]
    assert "| inf |  | inf | 0, 2 diverged |" in markdown(cells)
    assert finish(ablation, tmp_path) == 0


def test_cells_of_different_tokens_are_ranked_by_bits_per_byte(text: Path, tmp_path: Path):
    (tmp_path / "chinese.txt").write_text("\u65e5\u672c\u8a9e\u6587" * 200, encoding="utf-8")
    ablation = Ablation(
        {**TINY, "data": str(tmp_path / "chinese.txt")}, parse_variation("tokenizer=characters|bytes"), seeds=1
    )
    finish(ablation, tmp_path / "out")
    bits = [cell.mean_bits_per_byte for cell in collect(ablation, tmp_path / "out")]
    assert bits == sorted(bits)


def test_vocabularies_are_ranked_by_bits_per_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ablation = Ablation({**TINY, "tokenizer": "bpe"}, parse_variation("vocabulary=300|500"), seeds=1)
    found = {"vocabulary=300": (2.0, 3.0), "vocabulary=500": (2.5, 2.0)}
    made = [
        {"cell": cell, "seed": 1, "diverged": False, "val_loss": loss, "val_bpb": bits, "parameters": 1}
        for cell, (loss, bits) in found.items()
    ]
    monkeypatch.setattr("tinygrad_chat.experiments.report.read_rows", lambda folder: made)
    assert [cell.choices["vocabulary"] for cell in collect(ablation, tmp_path)] == [500, 300]


@pytest.mark.profile("ci")
@pytest.mark.parametrize(
    "line",
    [
        "[1]",
        "null",
        "{}",
        '{"cell": "norm=none,tied=on", "seed": 1}',
        '{"cell": [], "seed": {}}',
        "[" * 950 + "]" * 950,
        "\ud800",
        '{"cell": "norm=none,tied=on", "seed": 1, "diverged": false, "val_loss": null, "val_bpb": null, '
        '"parameters": 1, "steps": 6, "data_sha256": "", "best_val_loss": null, "seconds": 1.0}',
    ],
)
def test_a_result_that_is_none_is_found_anew(ablation: Ablation, tmp_path: Path, line: str):
    finish(ablation, tmp_path)
    whole = rows(tmp_path)
    results = [line if row["cell"] == "norm=none,tied=on" and row["seed"] == 1 else json.dumps(row) for row in whole]
    (tmp_path / "results.jsonl").write_text("".join(f"{result}\n" for result in results), errors="surrogatepass")
    assert finish(ablation, tmp_path) == 0  # its run is whole
    write_reports(collect(ablation, tmp_path), tmp_path, title="A title")
    assert sorted(map(str, rows(tmp_path))) == sorted(map(str, whole))


@pytest.mark.parametrize("content", ["[1]", "{}", '{"settings": []}', '{"settings": {"a": 1}}', "[" * 950, "{"])
def test_a_folder_that_does_not_say_what_it_is_for_is_refused(ablation: Ablation, tmp_path: Path, content: str):
    finish(ablation, tmp_path, stop_after=1)
    (tmp_path / "ablation.json").write_text(content)
    with pytest.raises(FormatError, match=r"ablation\.json: "):
        finish(ablation, tmp_path)


@pytest.mark.profile("ci")
@pytest.mark.parametrize("damage", ["no checkpoint", "damaged checkpoint", "cut line"])
def test_what_a_kill_left_behind_does_not_stop_it(ablation: Ablation, tmp_path: Path, damage: str):
    finish(ablation, tmp_path, stop_after=8)  # in the middle of the second run
    run = tmp_path / "runs" / "norm=layernorm,tied=on,seed=2"
    if damage == "cut line":
        with (tmp_path / "results.jsonl").open("a") as file:
            file.write('{"cell": "norm=layer')
    for checkpoint in (run / "checkpoints").iterdir() if damage != "cut line" else ():
        (checkpoint / "weights.safetensors").write_bytes(b"")
        if damage == "no checkpoint":
            shutil.rmtree(checkpoint)
    finish(ablation, tmp_path)
    assert len(rows(tmp_path)) == 8
