"""What the stages found, as one JSON, as a page in Markdown, and as a chart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import turns
from bench.chart import Bars, draw_bars, times
from bench.gpu.engines import NAMES
from bench.gpu.stages import STAGES, record_of

Found = Mapping[str, Any]

NAMING = ("engine", "file", "real", "model", "op", "dtype", "epilogue", "test")
"""What a failure may be a failure of."""


def gather(folder: Path) -> dict[str, Any]:
    """Return, for each stage with a record in `folder`, its outcome and what it found, ready for JSON."""
    gathered = {}
    for stage in STAGES:
        lines = record_of(stage.name, folder).lines()
        if lines:
            ended = record_of(stage.name, folder).last("ended") or {
                "outcome": "did not end",
                "reason": "",
                "seconds": 0,
            }
            found = [line for line in lines if line["what"] not in ("ended", "stopped")]
            gathered[stage.name] = {**{key: ended[key] for key in ("outcome", "reason", "seconds")}, "found": found}
    return gathered


def found_in(stages: Mapping[str, Any], what: str) -> list[Found]:
    """Return all results of that name, in the order of the stages."""
    return [line for stage in stages.values() for line in stage["found"] if line["what"] == what]


def page_of(stages: Mapping[str, Any], *, trial: bool = False) -> str:
    """Return the results as a page in Markdown; those of a `trial`, which uses no GPU, say so."""
    parts = [_outcomes(stages), _machine(stages), _kernels(stages), _products(stages), _training(stages)]
    parts += [_generation(stages), _profile(stages), _loops(stages), _nanochat(stages), _shakespeare(stages)]
    parts += [_tests(stages), _sanitizer(stages), _failures(stages)]
    return f"# On {_place(trial)}\n" + "".join(f"\n{text}\n" for part in parts if (text := "\n".join(part)))


def _table(*names: str, rows: Sequence[Sequence[object]]) -> Iterator[str]:
    if rows:
        yield f"| {' | '.join(names)} |"
        yield "|---" * len(names) + "|"
        yield from (f"| {' | '.join(map(str, row))} |" for row in rows)


def _outcomes(stages: Mapping[str, Any]) -> Iterator[str]:
    shows = {stage.name: stage.shows for stage in STAGES}
    reasons = {name: f": {stage['reason']}" * bool(stage["reason"]) for name, stage in stages.items()}
    rows = [(n, shows[n], each["outcome"] + reasons[n], each["seconds"]) for n, each in stages.items()]
    return _table("stage", "shows", "outcome", "seconds", rows=rows)


def _machine(stages: Mapping[str, Any]) -> Iterator[str]:
    for machine in found_in(stages, "machine"):
        yield f"{machine['device']}, in {machine['dtype']}."
    for limits in found_in(stages, "limits"):
        product, copy = limits["product_rate"] / 1e12, limits["bandwidth"] / 1e9
        yield f"A large product reaches {product:,.2f} TFLOP/s, a copy {copy:,.0f} GB/s, reads and writes together."


def _kernels(stages: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (
            line["model"],
            line["dtype"],
            f"{line['gradient']:.1e}",
            f"{line['losses']:.1e}",
            f"{line['logits']:.1e}",
            "yes" if line["close"] else "**no**",
        )
        for line in found_in(stages, "compared with the host")
    ]
    yield from _table("compared with the host", "dtype", "gradient", "losses", "logits", "close", rows=rows)


def _products(stages: Mapping[str, Any]) -> Iterator[str]:
    def rate(line: Found, way: str) -> str:
        return f"{line['operations'] / line['seconds'][way] / 1e12:,.2f}"

    rows = [
        (line["layer"], line["part"], rate(line, "plan"), rate(line, "cublas"), f"{line['distance']:.1e}")
        for line in found_in(stages, "product")
    ]
    names = "product", "", "TFLOP/s by a plan", "by cuBLAS", "difference of values"
    yield from _table(*names, rows=rows)
    yield from [""] if rows else []
    fused = [
        (
            line["epilogue"],
            "values are wrong" if line["seconds"]["within"] is None else f"{1e6 * line['seconds']['within']:.0f}",
            *(f"{1e6 * line['seconds']['beside']:.0f}", f"{line['distance']:.1e}"),
        )
        for line in found_in(stages, "epilogue")
    ]
    yield from _table("with its product", "us within it", "by our kernel", "difference of values", rows=fused)


def _training(stages: Mapping[str, Any]) -> Iterator[str]:
    attention = {(line["configuration"], line["engine"]): line["attention"] for line in found_in(stages, "losses")}
    limits = found_in(stages, "limits")
    rows = [
        (
            *(row["configuration"], row["engine"], row["batch"], f"{row['tokens_per_second']:,.0f}"),
            f"{row['flops_per_second'] / limits[-1]['product_rate']:.1%}" if limits else "",
            *(f"{row['peak_mib']:,.0f}", f"{row['ours_over_this']:.2f}"),
            attention.get((row["configuration"], row["engine"]), ""),
        )
        for row in found_in(stages, "training")
    ]
    whole = {(row["configuration"], row["engine"]) for row in found_in(stages, "training")}
    first = [
        (row["configuration"], row["engine"], row["batch"], f"{row['tokens_per_second']:,.0f}")
        for row in found_in(stages, "first")
        if (row["configuration"], row["engine"]) not in whole
    ]
    yield from _table("training, a few steps only", "", "batch", "tokens/s", rows=first)
    yield from [""] if first and rows else []
    names = "training", "", "batch", "tokens/s", "MFU", "peak MiB", "ours / this", "attention"
    yield from _table(*names, rows=rows)
    if rows:
        yield "\nMFU: the model's operations (12 L C T for attention, as in PaLM) over the large product's rate."


def _generation(stages: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (
            *(row["configuration"], row["engine"], row["batch"]),
            *(f"{row['tokens_per_second']:,.0f}", f"{row['ours_over_this']:.2f}"),
        )
        for row in found_in(stages, "generation")
    ]
    return _table("generation", "", "batch", "tokens/s", "ours / this", rows=rows)


def _profile(stages: Mapping[str, Any]) -> Iterator[str]:
    for profile in found_in(stages, "profile"):
        rows = [
            (
                *(row["name"], f"{1e3 * row['forward']:.3f}", f"{1e3 * row['backward']:.3f}"),
                f"{(row['forward'] + row['backward']) / profile['step_seconds']:.1%}",
                f"{row['least'] / (row['forward'] + row['backward']):.0%} {row['bound']}" if row["bound"] else "",
            )
            for row in profile["rows"]
        ]
        title = f"a step of ours, op by op: {profile['configuration']}, batch {profile['batch']}"
        yield from _table(title, "forward ms", "backward ms", "share", "of limit", rows=rows)
        yield f"\n{profile['bottleneck']}."
        yield f"In training, {'captured and replayed' * profile['captured'] or 'submitted op by op, too'}, a step takes"
        host = profile["host_seconds"]
        submitted = "" if host is None else f", which the host submits in {1e3 * host:.2f} ms"
        device = f"the device needs {1e3 * profile['device_seconds']:.2f} ms"
        yield f"{1e3 * profile['plain_seconds']:.2f} ms{submitted}; {device}."
        yield "`trace.json` shows the step op by op: open it at https://ui.perfetto.dev."


def _loops(stages: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (line["op"], line["dtype"], line["version"], f"{1e3 * line['seconds']:.3f}", f"{line['this_over_ours']:.2f}")
        for line in found_in(stages, "loop")
    ]
    return _table("hot loops, forward and backward", "dtype", "", "ms", "this / ours", rows=rows)


def _nanochat(stages: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (row["engine"], f"{row['tokens_per_second']:,.0f}", row["attention"]) for row in found_in(stages, "nanochat")
    ]
    return _table("nanochat's d12", "tokens/s", "attention", rows=rows)


def _shakespeare(stages: Mapping[str, Any]) -> Iterator[str]:
    for line in found_in(stages, "reached"):
        whole = f"{line['steps']:,} steps and {line['seconds']:.1f} s"
        yield f"S1 reached a validation loss of {line['target']} after {whole}, of"
        yield f"which {line['seconds_of_steps']:.1f} s were steps and the rest evaluations."
    for line in found_in(stages, "not reached"):
        yield f"S1 did not reach a validation loss of {line['target']}; its best was {line['best']:.3f}."


def _tests(stages: Mapping[str, Any]) -> Iterator[str]:
    counted = {line["file"]: line for line in found_in(stages, "tests")}  # the last of each file is the whole
    rows = [(file, line["passed"], line["failed"], line["skipped"]) for file, line in counted.items()]
    return _table("tests", "passed", "failed", "skipped", rows=rows)


def _sanitizer(stages: Mapping[str, Any]) -> Iterator[str]:
    rows = [(line["tool"], line["outcome"]) for line in found_in(stages, "sanitizer")]
    return _table("compute-sanitizer", "outcome", rows=rows)


def _failures(stages: Mapping[str, Any]) -> Iterator[str]:
    for what in ("engine failed", "compilation failed", "step failed", "no epilogue", "loop failed", "test failed"):
        for line in found_in(stages, what):
            subject = " ".join(line[key] for key in NAMING if key in line)
            yield f"- {what}: {subject}: {' '.join(line['reason'].split())}"


def _place(trial: bool) -> str:
    return "a CPU, as a trial" if trial else "one GPU"


def draw(stages: Mapping[str, Any], folder: Path, name: str, *, trial: bool = False) -> None:
    """Draw the training speeds, if there are any with a peer's beside ours."""
    by_place = {(row["configuration"], row["engine"]): row for row in found_in(stages, "training")}
    groups = [group for group, engine in by_place if engine == turns.OURS]
    engines = [engine for engine in NAMES if any((group, engine) in by_place for group in groups)]
    if len(engines) < 2:
        return

    def of(group: str, engine: str) -> Found:
        return by_place.get((group, engine), {})

    def length(row: Found) -> float | None:
        return 1 / row["ours_over_this"] if row else None

    bars = [
        Bars(
            engine,
            [length(of(group, engine)) for group in groups],
            [f"{of(group, engine).get('tokens_per_second', 0):,.0f}" for group in groups],
        )
        for engine in engines
    ]
    peers = {group: [of(group, e)["ours_over_this"] for e in engines[1:] if of(group, e)] for group in groups}
    draw_bars(
        folder,
        name,
        title=f"Training speed on {_place(trial)}",
        remark="length: relative to ours; figures: tokens per second",
        groups=groups,
        bars=bars,
        ratios=[times(min(peers[group])) if peers[group] else "" for group in groups],
        reference=1,
    )
