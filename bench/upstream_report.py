"""What the comparison with karpathy/nanochat says: a page in Markdown, and two charts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench import turns
from bench.chart import Bars, Curve, Panel, draw_bars, draw_curves
from bench.upstream_worker import EAGER


def page_of(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a Markdown page about a result as it is written."""
    baseline, environment = result["baseline"], result["environment"]
    yield "# Ours and karpathy/nanochat"
    yield ""
    yield f"`{result['command']}`, {result['date']}: {environment['processor']}, {environment['processors']} cores,"
    yield f"NumPy {environment['numpy']}, PyTorch {environment['torch']}, upstream at `{baseline['commit'][:10]}`."
    if baseline["commit"] != baseline["expected_commit"]:
        yield f"**Not the commit that ours follows, `{baseline['expected_commit'][:10]}`.**"
    yield ""
    for run in result["runs"]:
        config = run["settings"]
        noise = f", with normal noise of {run['noise']:g} on them" if run["noise"] else ""
        yield (
            f"**{run['configuration']}**: {config['layers']} layers, width {config['width']}, context "
            f"{config['context']}, {config['batch_size']} windows a step, {run['vocabulary']} tokens of vocabulary, "
            f"{config['steps']} steps on `{config['data']}`, the same batches and first weights{noise}; "
            f"learning rates: matrices {config['lr']:.4g}, embedding {config['embedding_lr']:.4g}, "
            f"head {config['head_lr']:.4g}, scales {config['scalar_lr']:.4g}; weight decay {config['weight_decay']:.4g}"
        )
        yield ""
        yield (
            "| | val loss | bits/byte | tokens/s | ours / this | s to the target | s of the first step | peak MiB "
            "| largest difference of a step's loss |"
        )
        yield "|" + "---|" * 9
        for row in run["engines"]:
            ratio, difference = row.get("ours_over_this"), row.get("largest_difference_of_losses")
            yield (
                f"| {row['engine']} | {row['val_loss']:.4f} | {row['bits_per_byte']:.4f} "
                f"| {row['tokens_per_second']:,.0f} | {'' if ratio is None else f'{ratio:.2f}'} "
                f"| {row['seconds_to_target']:.1f} | {row['first_step_seconds']:.2f} | {row['peak_mib']:,.0f} "
                f"| {'' if difference is None else f'{difference:.1e}'} |"
            )
        yield ""
        if run["engines"]:
            yield f"The target is the loss that all reach: {run['engines'][0]['target_loss']:.4f} nats."
            yield ""
    small = result["small"]
    yield f"**{small['characters']:,} characters**, each side from first weights of its own: validation loss in nats"
    yield ""
    yield f"| seed | {turns.OURS} | {EAGER} | difference |"
    yield "|---|---|---|---|"
    for row in small["rows"]:
        yield f"| {row['seed']} | {row[turns.OURS]:.4f} | {row[EAGER]:.4f} | {row['difference']:+.2%} |"
    yield ""
    yield (
        "From nanochat's own first weights the first gradients of some scales are rounding errors, and AdamW moves by "
        "them as far as by any others: runs drift apart from there, upstream's compiled from its own eager too. With "
        "noise on the first weights there are no such gradients, and the losses can be compared step by step."
    )
    yield ""
    for each in result["skipped"]:
        yield f"Not measured: {each['what']}: {each['reason']}."
    for each in result["failures"]:
        yield f"Failed: {each['engine']} on {each['configuration']}, while asked to {each['while']}: {each['reason']}."


def draw_training(run: Mapping[str, Any], folder: Path, name: str) -> None:
    """Draw validation loss against tokens and against seconds of training."""
    config = run["settings"]
    tokens = config["batch_size"] * config["context"]
    by_tokens, by_seconds = [], []
    for engine, curve in run["curves"].items():
        seconds = np.cumsum([0.0, *curve["seconds"]])
        losses = [each["loss"] for each in curve["evaluations"]]
        steps = [each["step"] for each in curve["evaluations"]]
        by_tokens.append(Curve(engine, f"{losses[-1]:.3f}", [step * tokens / 1000 for step in steps], losses))
        by_seconds.append(Curve(engine, f"{seconds[-1]:.0f} s", [float(seconds[step]) for step in steps], losses))
    draw_curves(
        folder,
        name,
        title=f"Ours and karpathy/nanochat, {run['configuration']}",
        remark="validation loss in nats; the same first weights, batches and settings",
        panels=[Panel("thousand tokens", by_tokens), Panel("seconds of training", by_seconds)],
        logarithmic=False,
    )


def draw_small(small: Mapping[str, Any], folder: Path, name: str) -> None:
    """Draw both sides' losses for each seed."""
    rows = small["rows"]
    if not rows:
        return
    draw_bars(
        folder,
        name,
        title=f"{small['characters']:,} characters: ours and karpathy/nanochat",
        remark=f"validation loss in nats after {small['settings']['steps']} steps, first weights of each side's own; "
        "ours less theirs in percent",
        groups=[f"seed {row['seed']}" for row in rows],
        bars=[
            Bars(engine, [row[engine] for row in rows], [f"{row[engine]:.3f}" for row in rows])
            for engine in (turns.OURS, EAGER)
        ],
        ratios=[f"{row['difference']:+.1%}" for row in rows],
    )
