"""Figures that the pages quote are those of the results that they name."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.overview import ratios
from tests.docs.pages import ROOT, blocks, read

RESULTS = ROOT / "bench" / "results"
BENCHMARKS, PERFORMANCE, README = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "performance.md", ROOT / "README.md"
OURS = "tinygrad_chat"


def result(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def by_place(name: str, *keys: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    return {tuple(row[key] for key in keys): row for row in result(name)["rows"]}


def words(page: Path) -> str:
    """Return a page's text with every break of a line a space."""
    return " ".join(read(page).split())


def quality() -> Iterator[str]:
    rows = by_place("quality", "settings", "seed")
    for settings in {row["settings"] for row in rows.values()}:
        yield " | ".join(f"{rows[settings, seed]['best_val_loss']:.3f}" for seed in (1, 2, 3)) + " |"
    for settings in ("preset best-small", "preset shakespeare-cpu"):
        yield f"{rows[settings, 1]['parameters']:,} parameters"
    yield f"nanoGPT's README gives {result('quality')['nanogpt_readme']}"


def speed() -> Iterator[str]:
    rows, best = by_place("step", "configuration", "engine"), ratios()["A training step, with AVX-512"]
    for name in ("micro", "shakespeare-cpu", "10M", "small-bpe"):
        engines = (OURS, "plain NumPy", "torch eager", "torch compile", "jax jit")
        torch = min(rows[name, engine]["ours_over_this"] for engine in ("torch eager", "torch compile"))
        share = f"{100 * rows[name, OURS]['share_of_sgemm']:.0f} %" if name != "micro" else ""
        yield (
            " | ".join(f"{rows[name, engine]['tokens_per_second']:,.0f}" for engine in engines)
            + f" | {torch:.2f} | {best[name]:.2f} | {share} |".replace("|  |", "| |")
            + f" {rows[name, 'torch bfloat16']['tokens_per_second']:,.0f} |"
        )
    yield f"{result('step')['sgemm_gflops']:.0f} GFLOP/s here"
    slow = by_place("avx2/step", "configuration", "engine")
    torch = [
        min(slow[n, e]["ours_over_this"] for e in ("torch eager", "torch compile"))
        for n in ("micro", "shakespeare-cpu")
    ]
    peer = ratios()["A training step, without AVX-512"]
    yield f"multiplies at {result('avx2/step')['sgemm_gflops']:.0f} GFLOP/s"
    yield f"{torch[0]:.1f} and {torch[1]:.1f} times](../bench/results/avx2/step.json)"
    yield f"at {peer['micro']:.1f} and {peer['shakespeare-cpu']:.1f} times that of the best peer"


def single_ops(of: str = "10M") -> dict[str, float]:
    rows = by_place("ops", "configuration", "engine", "op")
    compared = of, "torch eager"
    return {op: row["ours_over_this"] for (size, engine, op), row in rows.items() if (size, engine) == compared}


def small_measurements() -> Iterator[str]:
    eager = [row["ours_over_this"] for row in result("memory")["rows"] if row["engine"] == "torch eager"]
    yield f"Peak memory is {min(eager):.1f} to {max(eager):.1f} times that of PyTorch eager"
    one, eight = ratios()["Generating text"].values()
    yield f"{one:.1f} times as fast as PyTorch for one sequence and {eight:.1f} times for eight"
    rows = result("intel/decode")["rows"]
    of_intel = [
        min(row["ours_over_this"] for row in rows if row["batch"] == batch and row["engine"].startswith("torch"))
        for batch in (1, 8, 32)
    ]
    yield "{:.2f}, {:.2f} and {:.2f} times PyTorch for 1, 8 and 32 sequences".format(*of_intel)
    seconds = {row["engine"]: row["seconds"] for row in result("startup")["rows"] if row["what"] == "first step"}
    yield f"{seconds[OURS]:.1f} s after the start of the process; PyTorch eager needs {seconds['torch eager']:.1f} s"
    yield f"needs {seconds[f'{OURS}, first use']:.1f} s: here PyTorch is faster"
    ops = single_ops()
    slower = {op: ratio for op, ratio in ops.items() if ratio < 1}
    yield f"Of {len(ops)} single ops, {len(ops) - len(slower)} are faster than PyTorch's and {len(slower)} are slower"
    assert slower.keys() == {"linear", "layernorm"}
    yield f"linear by {100 - 100 * slower['linear']:.1f} % and layernorm by {100 - 100 * slower['layernorm']:.0f} %"
    small = {op: f"{ratio:.2f}" for op, ratio in single_ops("shakespeare-cpu").items() if ratio < 1}
    yield f"{len(small)} are slower: linear ({small['linear']} times PyTorch), attention ({small['attention']})"
    yield f"softmax ({small['softmax']})"
    slopes = result("scaling")["slopes"]
    assert all(slope[OURS] < slope["torch eager"] for slope in slopes.values())
    yield "Time per token grows no faster with context or width than PyTorch's"


def whole_runs() -> Iterator[str]:
    places = ("train", "intel/train")
    found = [by_place(place, "configuration", "machine", "engine") for place in places]
    for name, machine in dict.fromkeys(key[:2] for key in found[0]):
        cells = [
            f"{rows[name, machine, OURS]['seconds']:.1f} | {rows[name, machine, 'torch eager']['this_over_ours']:.2f} "
            f"| {rows[name, machine, 'torch compile']['this_over_ours']:.2f}"
            for rows in found
        ]
        yield f"| {machine} | {' | '.join(cells)} |"
    amd, intel = (result(place)["sgemm_gflops"] for place in places)
    yield f"which multiply at {amd:.0f} GFLOP/s"
    yield f"(Emerald Rapids) with {intel:.0f} GFLOP/s in this run"
    ratios_of_all = [row["this_over_ours"] for rows in found for row in rows.values() if row["engine"] != OURS]
    assert len(ratios_of_all) == 16
    assert sum(round(ratio, 2) >= 1.5 for ratio in ratios_of_all) == 2
    yield "The goal of 1.5 is reached in two of these sixteen comparisons"
    for rows, text in zip(found, ("in the first row and {} against {} in the third", "and {} against {}"), strict=True):
        speeds = [
            f"{rows[name, 'quiet', OURS][key]:,.0f}"
            for name in ("shakespeare-cpu", "nanochat d4")
            for key in ("tokens_per_second", "tokens_per_second_of_bare_steps")
        ]
        yield speeds[0] + " against " + speeds[1]
        yield text.format(*speeds[2:])


def nanochat() -> Iterator[str]:
    data = result("upstream")
    plain, noisy = ({row["engine"]: row for row in run["engines"]} for run in data["runs"])
    assert (data["runs"][0]["noise"], data["runs"][1]["noise"]) == (0, 0.01)
    for engine, label in (
        (OURS, "ours"),
        ("nanochat eager", "nanochat, eager"),
        ("nanochat compile", "nanochat, compiled"),
    ):
        row, other = plain[engine], noisy[engine]
        gain = f" {row['ours_over_this']:.2f} |" if engine != OURS else " |"
        yield (
            f"| {label} | {row['tokens_per_second']:,.0f} |{gain} {row['val_loss']:.3f} | {other['val_loss']:.4f} "
            f"| {row['peak_mib']:.0f} |"
        )
    yield f"more than {100 * max(row['largest_difference_of_losses'] for row in noisy.values()):.2f} % from either"
    yield f"agree to {100 * max(abs(row['difference_of_val_loss']) for row in noisy.values()):.2f} %"
    yield f"within {100 * max(abs(row['difference']) for row in data['small']['rows']):.1f} %]"
    yield f"`{data['baseline']['commit'][:7]}`"


def survival() -> Iterator[str]:
    data = result("survival")
    kills, calls, damage = data["kills"], data["calls"], data["damage"]
    yield f"{kills['kills_while_a_file_was_half_written']} of them while a file was half written"
    yield f"{kills['kills']} kills in {kills['cases']} runs | {kills['survived']} runs |"
    yield f"| {calls['cases']:,} | {calls['survived']:,} |"
    rollbacks = data["rollbacks"]
    assert (rollbacks["rollbacks"], rollbacks["skipped_spikes"]) == (2, 3)
    yield f"rolls back twice and skips three updates | {rollbacks['cases']:,} | {rollbacks['survived']:,} |"
    disk = [data["full disk"][key] + data["read-only"][key] for key in ("cases", "survived")]
    yield f"| {disk[0]} | {disk[1]} |"
    yield f"| {damage['cases']} | {damage['survived']} |"
    yield f"grows by {100 * data['memory']['growth']:.1f} % over {data['memory']['steps']:,} steps"


def plans() -> Iterator[str]:
    ratio = [row["ratio"] for row in result("plan")["rows"]]
    assert all(abs(r["memory"] - 1) < 0.01 and abs(r["wall_seconds"] - 1) < 0.10 for r in ratio)
    assert all(abs(r["training_seconds"] - 1) < 0.10 for r in ratio)
    yield "predicts memory within 1 % and time within 10 %"


def scalar() -> Iterator[str]:
    data = result("scalar")
    yield f"takes {1000 * data['seconds_a_step']['fused nodes']:.0f} ms a step on fused nodes"
    local, closures = (
        data["ratios"][f"plain operators / textbook, {form}"] for form in ("local gradients", "closures")
    )
    yield f"{local:.2f} of the time that it takes on Values with local gradients"
    yield f"{closures:.2f} of the time with closures"


def test_the_chat_page_quotes_its_results():
    page = words(ROOT / "docs" / "chat.md")
    tasks = ("python", "sums", "spelling", "turns", "unknown", "known")  # as on the page

    def solved(name: str, task: str) -> list[str]:
        shares = [100 * row["scores"][task]["accuracy"] for row in result(name)["rows"]]
        return ["100" if share == 100 else f"{share:.1f}" for share in shares]

    for task in tasks:
        first, second, third = solved("chat", task)
        assert f"{first}, {second} and {third} % | {100 * result('chat')['bar'][task]:.0f} % |" in page
    *most, last = [solved("chat_portable", task)[0] for task in tasks]
    assert f"with seed 1 it solves {', '.join(most)} and {last} %" in page


def test_interchange_quotes_its_results():
    page, of = words(ROOT / "docs" / "interchange.md"), {row["engine"]: row for row in result("interchange")["rows"]}
    kinds, theirs = [f"{OURS} {kind}" for kind in ("float32", "float16", "int8")], of["transformers float32"]
    for row in of.values():
        speeds = row["decode_1_tokens_per_second"], row["decode_8_tokens_per_second"]
        cells = *(f"{speed:.1f}" for speed in speeds), f"{row['prompt_tokens_per_second']:,.0f}"
        assert f"| {' | '.join(cells)} | {row['memory_mib']:,.0f} | {row['start_seconds']:.1f} |" in page

    def ratios_to(others: list[dict[str, Any]], rows: int) -> list[str]:
        speed = f"decode_{rows}_tokens_per_second"
        return [f"{of[kind][speed] / other[speed]:.2f}" for kind, other in zip(kinds, others, strict=True)]

    assert "{} times as fast in float32, {} in float16 and {} in int8".format(*ratios_to([theirs] * 3, 1)) in page
    assert "eight sequences {}, {} and {} times".format(*ratios_to([theirs] * 3, 8)) in page
    prompts = of[kinds[0]]["prompt_tokens_per_second"] / theirs["prompt_tokens_per_second"]
    assert f"reads a prompt {prompts:.2f} times as fast as transformers" in page


def test_serving_quotes_its_results():
    page, found = words(ROOT / "docs" / "serving.md"), result("serving")
    rows = {(row["clients"], row["engine"]): row for row in found["load"]["rows"]}
    kinds = [OURS, f"{OURS} float16", f"{OURS} int8"]
    for clients in (1, 8, 32):
        torch = rows[clients, "torch eager"]["tokens_per_second"]
        speeds = [rows[clients, kind]["tokens_per_second"] for kind in kinds]
        first = [1000 * rows[clients, kind]["seconds_to_first_token"]["median"] for kind in kinds]
        cells = " | ".join(f"{speed:,.0f} ({speed / torch:.2f})" for speed in speeds)
        assert f"| {clients} | {cells} | {first[0]:.0f}, {first[2]:.0f} ms |" in page
    over_one, idle = rows[8, OURS]["over_one_client"], found["load"]["idle_share_of_a_core"]
    assert f"three times the sequential speed with 8 clients, is reached: {over_one:.2f}." in page
    assert f"An idle server takes {100 * idle:.2f} % of a core" in page


@pytest.mark.parametrize(
    "claims",
    [quality, speed, whole_runs, small_measurements, nanochat, survival, plans, scalar],
    ids=lambda claims: claims.__name__,
)
def test_benchmarks_quotes_its_results(claims):
    page = words(BENCHMARKS)
    for claim in claims():
        assert claim in page


def test_the_readme_quotes_its_results():
    page, of = words(README), ratios()
    steps = of["A training step, with AVX-512"].values()
    assert f"{min(steps):.1f} to {max(steps):.1f} times as fast as the best of PyTorch" in page
    theirs = of["A training step of nanochat's GPT"]["d4"]
    assert f"is {theirs:.1f} times as fast as nanochat's own" in page
    rows = result("quality")["rows"]
    losses = [row["best_val_loss"] for row in rows if row["settings"] == "preset shakespeare-cpu"]
    assert f"{min(losses):.2f} to {max(losses):.2f} in its 2,000 steps" in page
    best = statistics.median(row["best_val_loss"] for row in rows if row["settings"] == "preset best-small")
    assert f"the preset `best-small` {best:.2f}" in page
    for place, text in (
        ("train", "takes {:.1f} to {:.1f} times as long as"),
        ("intel/train", "{:.1f} to {:.1f} times as long on"),
    ):
        runs = [row["this_over_ours"] for row in result(place)["rows"] if row["engine"] != OURS]
        assert text.format(min(runs), max(runs)) in page
    slow = of["A training step, without AVX-512"]["shakespeare-cpu"]
    assert f"without AVX-512 the same step is only {slow:.1f} times" in page


def test_what_the_readme_prints_was_printed():
    shown = next(block.text for block in blocks(README) if block.language == "text").splitlines()
    record = (ROOT / "docs" / "pictures" / "first_run.txt").read_text(encoding="utf-8").splitlines()
    assert len(shown) == 6
    assert [line for line in record if line in shown] == shown
    commands = [line.removeprefix("$ ") for line in record if line.startswith("$ ")]
    assert commands == [
        line.removeprefix(".venv/bin/")
        for line in [block.text for block in blocks(README) if not block.language][1].splitlines()
    ]


def test_performance_quotes_its_results():
    page, rows = words(PERFORMANCE), ratios()
    step = by_place("step", "configuration", "engine")
    torch = {
        name: min(step[name, engine]["ours_over_this"] for engine in ("torch eager", "torch compile"))
        for name in ("micro", "small-bpe")
    }
    assert f"**micro** is {torch['micro']:.2f} times PyTorch" in page
    assert (
        f"**small-bpe** reaches {100 * step['small-bpe', OURS]['share_of_sgemm']:.0f} % of the machine's product rate"
        in page
    )
    assert f"**Decoding eight sequences** is {rows['Generating text']['8 sequences']:.2f} times PyTorch" in page
    assert f"**softmax** as a separate op is {single_ops('shakespeare-cpu')['softmax']:.2f} times PyTorch" in page
    nodes = {row["engine"]: row for row in result("ops")["rows"] if row["op"] == "1,000 nodes"}
    ours, theirs = (1e3 * (nodes[engine]["forward"] + nodes[engine]["backward"]) for engine in (OURS, "torch eager"))
    assert f"A node costs {ours:.1f} microseconds forward and backward" in page
    assert f"PyTorch's costs {theirs:.1f}" in page


def _name_of(row: dict[str, Any]) -> str:
    """Return how a kernel is called: flash attention's also by the channels of a head and the kind of products."""
    found = re.match(r"flash_attention_(wgmma_)?(\d+)\.cu", row["file"])
    wgmma = ", wgmma" if found and found[1] else ""
    return row["kernel"] + (f", {found[2]} channels{wgmma}" if found else "")


def test_performance_lists_the_kernels_with_few_warps():
    rows = [
        row
        for row in result("kernels")["rows"]
        if (row["compiler"], row["architecture"].removesuffix("a"), row["real"]) == ("NVRTC", "sm_90", "bfloat16")
        and row["warps"] < 32
    ]
    lines = []
    for row in sorted(rows, key=lambda row: (row["warps"], -row["registers"])):
        shared = row["shared"] + row["dynamic_shared"]
        lines.append(f"| {_name_of(row)} | {row['registers']} | {shared:,} | {row['blocks']} | {row['warps']} |\n")
    assert "|---|---|---|---|---|\n" + "".join(lines) + "\n" in read(PERFORMANCE)


def test_performance_lists_the_instructions_of_kernels_with_products():
    rows = [
        row for row in result("kernels")["rows"] if "loop" in row and row["architecture"].removesuffix("a") == "sm_90"
    ]
    lines = []
    for row in sorted(rows, key=lambda row: -row["loop"]["executed"] / row["loop"]["products"]):
        loop = row["loop"]
        each = loop["executed"] / loop["products"]
        lines.append(
            f"| {_name_of(row)} | {loop['instructions']:,} | {loop['executed']} | {loop['products']} | {each:.1f} |\n"
        )
    assert len(lines) == 12
    assert "|---|---|---|---|---|\n" + "".join(lines) + "\n" in read(PERFORMANCE)


def test_the_chart_keeps_the_rows_where_we_lose():
    of = ratios()
    lost = {op for op, ratio in single_ops().items() if ratio < 1}
    ops = next(rows for heading, rows in of.items() if heading.startswith("Single ops"))
    assert lost
    assert lost <= ops.keys()
    assert of["From start to the first step"]["the very first use"] < 1
