"""What is tried: runs with damaged files, weights that lie, command lines that nobody types."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.hostile.command_lines import random_command_line
from bench.hostile.damage import Damage, damage
from bench.hostile.safetensors import changed_file, random_file
from bench.hostile.values import UNREADABLE, changed, hostile_value, json_bytes

RESUME = ("train", "--resume", "--out", "runs/a")
SHORT = ("--max-new-tokens", "8", "--seed", "1")


@dataclass
class Prepared:
    """Commands to run in a folder, one after the other; what was done there before, in words, and to which paths."""

    commands: Sequence[Sequence[str]]
    done: list[str] = field(default_factory=list)
    damaged: list[Path] = field(default_factory=list)


def prepare_runs(folder: Path, chance: random.Random) -> Prepared:
    """Damage one to three files of a run, now and then also of the token cache, and look at it in every way."""
    prepared = Prepared(
        [
            ("runs",),
            ("runs", "a", "--json"),
            ("report", "a"),
            ("compare", "a", "b", "--out", "plots"),
            ("sample", "--checkpoint", "a", *SHORT),
            ("eval", "a", "--data", "text.txt"),
            ("chat", "--checkpoint", "a", "--prompt", "hi", *SHORT),
            RESUME,
            ("train", "--from", "runs/a", "--data", "text.txt", "--steps", "1", "--out", "runs/c"),
        ]
    )
    for _ in range(chance.choices([1, 2, 3], [7, 2, 1])[0]):
        below = Path("cache") if chance.random() < 0.06 else Path("runs/a")
        _note(prepared, damage(folder, below, chance))
    return prepared


def _note(prepared: Prepared, done: Damage) -> None:
    prepared.done.append(done[0])
    prepared.damaged += done[1]


def prepare_weights(folder: Path, chance: random.Random) -> Prepared:
    """Change a file of weights, draw one, or change the settings beside it; import it, and sample from what comes."""
    weights = Path("weights")
    file = weights / chance.choice(["model.safetensors", "bare.safetensors"])
    meta = weights / "meta.json"
    prepared = Prepared([], damaged=[file, meta])
    what = chance.random()
    if what < 0.6:
        content = (folder / file).read_bytes()
        for _ in range(chance.choice([1, 1, 2])):
            try:
                content = changed_file(content, chance)
            except UNREADABLE:
                break  # what was changed before cannot be read any more
        (folder / file).write_bytes(content)
        prepared.done.append(f"{file}: says otherwise")
    elif what < 0.8:
        (folder / file).write_bytes(random_file(chance))
        prepared.done.append(f"{file}: drawn")
    elif what < 0.9:
        file = weights / "bare.safetensors"
        settings = {"sequence_len": 8, "n_layer": 1, "n_head": 2, "n_kv_head": 2, "n_embd": 24}
        config = {"step": 1, "model_config": {**settings, "vocab_size": 30, "window_pattern": "L"}}
        tree = hostile_value(chance) if chance.random() < 0.1 else changed(config, chance)
        (folder / meta).write_bytes(json_bytes(tree))
        prepared.done.append(f"{meta}: says otherwise")
    else:
        _note(prepared, damage(folder, weights, chance))
    options = ("--meta", str(meta)) if file.name == "bare.safetensors" else ()
    prepared.commands = [
        ("import", str(file), *options, "--out", "runs/c"),
        ("sample", "--checkpoint", "c", *SHORT),
        ("runs",),
    ]
    return prepared


def prepare_line(_folder: Path, chance: random.Random) -> Prepared:
    """Draw one command line."""
    line = random_command_line(chance)
    return Prepared([line], done=[repr(line)[:2000]])


PARTS = {"runs": prepare_runs, "weights": prepare_weights, "lines": prepare_line}
SHARES = {"runs": 1.0, "weights": 2 / 3, "lines": 2 / 3}
"""How many of each there are for one of the first."""
