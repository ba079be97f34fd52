"""Command lines that nobody types: real options with values of every kind, and things that are no options."""

from __future__ import annotations

import functools
import random
from typing import Any

import typer

from bench.hostile.values import FLOATS, INTEGERS, STRINGS
from tinygrad_chat.cli.app import COMMANDS, app

TRAIN = {
    "--data": "text.txt",
    "--layers": "1",
    "--heads": "2",
    "--width": "8",
    "--context": "8",
    "--batch-size": "2",
    "--steps": "2",
    "--threads": "1",
    "--eval-every": "1",
}
USUAL: dict[str, dict[str, str]] = {
    "train": {**TRAIN, "--out": "runs/c"},
    "plan": TRAIN,
    "profile": {**TRAIN, "--profile-steps": "2"},
    "sample": {"--checkpoint": "a", "--max-new-tokens": "8", "--seed": "1"},
    "chat": {"--prompt": "hi", "--checkpoint": "talk", "--max-new-tokens": "8", "--seed": "1"},
    "serve": {"--port": "0"},
    "eval": {"--data": "text.txt"},
    "ablate": {**TRAIN, "--vary": "tied", "--seeds": "1", "--out": "ablation"},
    "graph": {"--out": "graph.svg"},
    "import": {"--out": "runs/c"},
    "export": {"--weights": "F32"},
}
"""What keeps each command short."""

NOWHERE = {"serve": ("--host", "192.0.2.1", "--api-key", "a")}
"""Said last: no machine has this address, and a server that could listen would never end."""

ARGUMENTS = {
    "runs": [],
    "serve": ["a"],
    "eval": ["a"],
    "tokenizer": ["show", "abc", "--tokenizer", "a"],
    "data": ["show", "text.txt"],
    "report": ["a"],
    "compare": ["a", "b"],
    "graph": ["a*b + exp(c)"],
    "inspect": ["a"],
    "import": ["weights/model.safetensors"],
    "export": ["nanochat", "imported", "exported.safetensors"],
}
WEIGHTS = {"plan": 1, "profile": 1, "train": 14, "ablate": 4}  # the rest 4: those take long, that has most options

PATHS = (
    "text.txt",
    "runs",
    "runs/a",
    "a",
    "b",
    "imported",
    "weights/model.safetensors",
    "weights/meta.json",
    "outside",
)
PATHS += ("outside/pipe", "outside/zero", "runs/a/config.toml", "runs/a/checkpoints", "runs/a/checkpoints/step-000004")
PATHS += (
    "http://127.0.0.1:9/x",
    "ftp://127.0.0.1:9/x",
    "file:///x",
    "https://",
    "*",
    "**/*",
    "[",
    "runs/*",
    "x/y/z",
    ".",
)
FORMULAS = (
    "1/0",
    "a**-1",
    "exp(1e9)",
    "log(-1)",
    "(" * 5000,
    "a" * 5000,
    "a+" * 3000 + "a",
    "__import__('os')",
    "a if b",
)
FORMULAS += ("9**9**9**9", "2**0.5**a", "a@b", "tanh()", "relu(1,2)", "x.y", "[1]", "1e999", "0x10", "lambda: 1", "-")
VARIATIONS = (
    "norm",
    "norm,tied",
    "width=[[[[",
    "lr=nan|inf",
    "seed=1|2",
    "=",
    ",",
    "lr=",
    "=1",
    "lr=1|1",
    "data=outside|x",
)
VARIATIONS += (
    "lr=" + "9" * 5000,
    "steps=0|-1",
    "nope",
    "norm=",
    "model=mini-gpt|bigram",
    "lr|2",
    "a=b=c",
    "width=1e400",
)
SETTINGS = ("a=1", "a=", "=1", "a=nan", "a=b", "a=" + "9" * 5000, "a=1e999", "é=1", "a b=1", "a=1=2")
ENDLESS = {"--steps", "--minutes", "--max-new-tokens", "--num-samples", "--profile-steps", "--warmup-steps"}
"""What may be as much as anyone likes, and then takes as long: these get values that are small or cannot be."""
MODERATE = 10**6  # a model as large as that can be trained, and takes the memory of one


@functools.cache
def _options(command: str) -> list[Any]:
    """Return the parameters of a command that are options."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("tgc", [command], resilient_parsing=True)
    _, loaded, _ = group.resolve_command(context, [command])
    return [each for each in loaded.params if each.param_type_name == "option" and each.name != "help"]


def random_command_line(chance: random.Random) -> list[str]:
    """Return a command with one to four things about it that are unusual."""
    command = chance.choices(list(COMMANDS), [WEIGHTS.get(each, 4) for each in COMMANDS])[0]
    chosen: list[tuple[str, ...]] = list(USUAL.get(command, {}).items())
    arguments = list(ARGUMENTS.get(command, []))
    for _ in range(chance.choices([1, 2, 3, 4], [5, 3, 2, 1])[0]):
        what = chance.random()
        options = _options(command) if command in COMMANDS else []
        if what < 0.62 and options:
            chosen = _with(chosen, _given(chance.choice(options), chance))
        elif what < 0.68:
            removable = [each for each in chosen if each[0] not in ("--steps", "--max-new-tokens", "--profile-steps")]
            if removable:
                chosen.remove(chance.choice(removable))
        elif what < 0.74:
            chosen.append(
                (chance.choice([f"--{_text(chance)}", "-x", "--", "---", "-", "--no-x", "--lr=", "-vq", "-h"]),)
            )
        elif what < 0.8:
            arguments = arguments[: chance.randrange(len(arguments) + 1)]
        elif what < 0.97:
            arguments.insert(chance.randrange(len(arguments) + 1), _value(command, chance))
        else:
            command = chance.choice([command.upper(), command[:-1], _text(chance), "help", command + "\x1b[31m"])
    chance.shuffle(chosen)
    line = [command, *(word for words in chosen for word in words), *NOWHERE.get(command, ()), *arguments]
    # A command line is bytes without zeros.
    return [word.replace("\x00", "") for word in line]


def _with(chosen: list[tuple[str, ...]], given: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Give an option instead of what it was given before."""
    return [*(each for each in chosen if each[0] != given[0]), given]


def _given(option: Any, chance: random.Random) -> tuple[str, ...]:
    """Return an option with a value, often of its type."""
    name = chance.choice([*option.opts, *option.secondary_opts])
    if option.is_flag:
        return (name,)
    longest = max(option.opts, key=len)
    kind = option.type.name  # such as "integer range"
    if longest == "--vary":
        return name, chance.choice(VARIATIONS)
    if longest == "--set":
        return name, chance.choice(SETTINGS)
    if option.metavar and "|" in option.metavar and chance.random() < 0.6:
        return name, chance.choice([*option.metavar.split("|"), "auto", "AUTO", ""])
    if "int" in kind and chance.random() < 0.7:
        numbers = [number for number in INTEGERS if not 3 < number <= (2**53 if longest in ENDLESS else MODERATE)]
        return name, str(chance.choice(numbers))
    if "float" in kind and chance.random() < 0.7:
        return name, repr(chance.choice([number for number in FLOATS if longest not in ENDLESS or not number > 1]))
    return name, chance.choice(PATHS) if chance.random() < 0.4 else _text(chance)


def _value(command: str, chance: random.Random) -> str:
    if command == "graph" and chance.random() < 0.7:
        return chance.choice(FORMULAS)
    return chance.choice([chance.choice(PATHS), _text(chance), str(chance.choice(INTEGERS))])


def _text(chance: random.Random) -> str:
    """Return text that can stand on a command line, or hardly: the system takes up to 128 KiB of it."""
    return chance.choice(STRINGS)[:100_000].replace("\ud800", "\udc80")
