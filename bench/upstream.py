"""Ours and karpathy/nanochat itself: the same model, weights, batches, optimiser and schedules, side by side.

Each engine lives in a process of its own; they take turns. Every step's loss and every evaluation are kept, so quality
is compared at equal tokens and at equal seconds. What cannot be measured here is recorded with its reason; an engine
that fails, or is not done in time, is recorded as failed and the others go on. A second part trains on 10,000
characters with five seeds, each side from first weights of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import turns
from bench.peers import nanochat
from bench.record import write_result
from bench.upstream_report import draw_small, draw_training, page_of
from bench.upstream_worker import EAGER, ENGINES
from tinygrad_chat.config.record import TrainingConfig, from_saved
from tinygrad_chat.config.scaling_laws import settings_of_depth
from tinygrad_chat.errors import BackendError
from tinygrad_chat.interchange.nanochat import to_nanochat
from tinygrad_chat.models.gpt import GPT
from tinygrad_chat.models.size import flops_per_token
from tinygrad_chat.seeds import rng
from tinygrad_chat.text.corpora import open_corpus
from tinygrad_chat.text.data import open_data
from tinygrad_chat.text.dataset import Dataset

NAME = "upstream"
DATA = "pydoc"  # every Python carries it
STEPS, ROUNDS = 300, 15
HELD_OUT = 16_384  # tokens of an evaluation
PATIENCE = {"ready": 300.0, "train": 900.0, "evaluate": 300.0}  # seconds for an answer; the first steps compile
NOISE = 0.01  # standard deviation


@dataclass(frozen=True)
class Comparison:
    """What is trained on both sides. With `noise` on the first weights no gradient there is a rounding error; from
    nanochat's own, those of some scales are, and runs drift apart: upstream's from itself, too."""

    name: str
    device: str
    settings: dict[str, Any]
    noise: float = 0.0


D4 = {"depth": 4, "context": 256, "batch_size": 8}
ON_THE_CPU = (Comparison("d4", "cpu", D4), Comparison("d4, noise on the first weights", "cpu", D4, NOISE))
ON_A_GPU = tuple(
    Comparison(
        f"d{depth} on a GPU", "cuda", {"depth": depth, "context": 1024, "batch_size": 16, "grad_accumulation": 1}
    )
    for depth in (4, 8, 12)
)
GPU_VOCABULARY = 32_768  # upstream's; the text needs fewer, and the head costs the same
SEEDS = range(1, 6)
SMALL = {"depth": 2, "context": 64, "batch_size": 8, "steps": 200, "warmup": 20, "width": 64, "heads": 2}
SMALL_CHARACTERS = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    turns.add_arguments(parser)
    parser.set_defaults(rounds=ROUNDS)
    parser.add_argument("--baseline", choices=("nanochat",), default="nanochat", help="whose training to compare with")
    nanochat.add_argument(parser)
    parser.add_argument("--steps", type=int, default=STEPS, help=f"training steps of each engine ({STEPS})")


def measure(arguments: argparse.Namespace) -> None:
    absent = nanochat.why_absent(arguments.nanochat)
    if absent:
        raise BackendError(absent)
    checkout = str(Path(arguments.nanochat).resolve())
    skipped: list[dict[str, str]] = []
    failures: list[dict[str, str]] = []
    runs = [_compare(each, checkout, arguments, failures) for each in _comparisons(skipped)]
    small = _compare_small(checkout, failures)
    measured = {
        "baseline": {"commit": nanochat.commit_of(checkout), "expected_commit": nanochat.COMMIT},
        "skipped": skipped,
        "failures": failures,
        "runs": runs,
        "small": small,
    }
    command = f"python -m bench {NAME} --baseline nanochat --nanochat DIR --steps {arguments.steps}"
    command += f" --rounds {arguments.rounds}"
    path = write_result(NAME, command, measured, packages=("torch",), folder=arguments.results)
    page = "\n".join(page_of(json.loads(path.read_text()))) + "\n"
    (arguments.results / f"{NAME}.md").write_text(page)
    print(f"{page}\nwritten: {path}")
    draw_training(runs[0], arguments.results, NAME)
    draw_small(small, arguments.results, f"{NAME}_small")


def _comparisons(skipped: list[dict[str, str]]) -> Iterator[Comparison]:
    yield from ON_THE_CPU
    import torch

    from tinygrad_chat.backend import get_backend

    try:
        if not torch.cuda.is_available():
            raise BackendError(f"PyTorch {torch.__version__} finds no GPU")
        get_backend("cupy")
    except BackendError as error:
        skipped.append({"what": ", ".join(each.name for each in ON_A_GPU), "reason": str(error)})
        return
    yield from ON_A_GPU


@contextmanager
def _prepared(
    chosen: Mapping[str, Any],
    device: str,
    checkout: str,
    *,
    seed: int = 1,
    noise: float = 0.0,
    own_weights: bool = False,
    text: str = DATA,
) -> Iterator[dict[str, Any]]:
    """Provide what a worker is told: settings, and files of tokens and, unless they are its own, of first weights."""
    store = open_data(text, "characters")
    tokenizer = store.tokenizer
    vocabulary = GPU_VOCABULARY if device == "cuda" else tokenizer.size
    settings = settings_of_depth(chosen, vocabulary)
    config = TrainingConfig.of(**{**settings, "grad_accumulation": 1, **chosen, "model": "nanochat", "seed": seed})
    dataset = Dataset.from_store(store, context=config.model.context)
    sizes = np.zeros(vocabulary, np.int64)
    sizes[: tokenizer.size] = tokenizer.bytes_per_token()
    with tempfile.TemporaryDirectory() as folder:
        tokens, weights = Path(folder) / "tokens.npz", None
        np.savez(tokens, training=dataset.training, validation=dataset.validation, bytes_per_token=sizes)
        if not own_weights:
            model = GPT(vocabulary, config.model, random=rng(seed, "initialisation"))
            parameters = model.parameters()
            parameters.data += noise * np.random.default_rng(seed).standard_normal(parameters.size)
            weights = str(Path(folder) / "weights.npz")
            np.savez(weights, **to_nanochat(parameters.state(), config.model))  # pyright: ignore[reportArgumentType]
        yield {
            "checkout": checkout,
            "device": device,
            "config": config.used_settings(),
            "vocabulary": vocabulary,
            "weights": weights,
            "tokens": str(tokens),
        }


class _Engines:
    """Workers that still work. What stops one is recorded, and the others go on."""

    def __init__(self, what: str, workers: Mapping[str, turns.Worker], failures: list[dict[str, str]]) -> None:
        self._what, self._workers, self._failures = what, dict(workers), failures

    def ask(self, engine: str, what: str, amount: int = 0) -> dict[str, Any] | None:
        """Return an engine's answer, None where it does not work, or no longer in time or with numbers."""
        if engine not in self._workers:
            return None
        try:
            answer = self._workers[engine].ask({"what": what, "amount": amount}, within=PATIENCE[what])
            if not math.isfinite(answer.get("loss", 0.0)):
                raise turns.BenchmarkError(f"the loss is {answer['loss']}")
        except turns.BenchmarkError as error:
            failure = {"configuration": self._what, "engine": engine, "while": what, "reason": str(error)}
            self._failures.append(failure)
            turns.progress(f"{NAME} {self._what}: {engine} failed: {error}")
            del self._workers[engine]
            return None
        return answer


@contextmanager
def _engines(
    names: Sequence[str], what: str, request: Mapping[str, Any], failures: list[dict[str, str]]
) -> Iterator[_Engines]:
    commands = {engine: ("bench.upstream_worker", engine, json.dumps(request)) for engine in names}
    with turns.open_workers(commands) as workers:
        yield _Engines(what, workers, failures)


def _compare(
    comparison: Comparison, checkout: str, arguments: argparse.Namespace, failures: list[dict[str, str]]
) -> dict[str, Any]:
    """Train all engines in turns; return their curves and what follows from them."""
    steps, rounds = arguments.steps, min(arguments.rounds, arguments.steps)
    amounts = [steps * (n + 1) // rounds - steps * n // rounds for n in range(rounds)]
    settings = {**comparison.settings, "steps": steps, "warmup": min(40, steps // 2)}
    with (
        _prepared(settings, comparison.device, checkout, noise=comparison.noise) as request,
        _engines(list(ENGINES), comparison.name, request, failures) as engines,
    ):
        curves = _train_in_turns(engines, amounts, f"{NAME} {comparison.name}")
    config = from_saved(request["config"], source="the request")
    whole = {engine: curve for engine, curve in curves.items() if len(curve["losses"]) == steps}
    return {
        "configuration": comparison.name,
        "device": comparison.device,
        "noise": comparison.noise,
        "vocabulary": request["vocabulary"],
        "flops_a_token": flops_per_token(config.model, request["vocabulary"]),
        "settings": request["config"],
        "engines": _summarize(whole, config, amounts),
        "curves": curves,
    }


def _train_in_turns(engines: _Engines, amounts: Sequence[int], title: str) -> dict[str, dict[str, Any]]:
    """Return each engine's losses, seconds and evaluations, as far as it came."""
    curves: dict[str, dict[str, Any]] = {}
    for engine in ENGINES:
        ready, evaluated = engines.ask(engine, "ready"), engines.ask(engine, "evaluate", HELD_OUT)
        if ready and evaluated:
            curves[engine] = {**ready, "losses": [], "seconds": [], "evaluations": [{"step": 0, **evaluated}]}
    places = iter(amount for amount in amounts for _ in ENGINES)
    for engine in turns.take_turns(list(ENGINES), len(amounts), title):
        trained = engines.ask(engine, "train", next(places))
        evaluated = engines.ask(engine, "evaluate", HELD_OUT)
        if trained and evaluated:
            curve = curves[engine]
            curve["losses"] += trained["losses"]
            curve["seconds"] += trained["seconds"]
            curve["evaluations"].append({"step": len(curve["losses"]), **evaluated})
            curve |= {"peak_mib": trained["peak_mib"], "threads": trained["threads"]}
    return curves


def _summarize(curves: Mapping[str, Any], config: TrainingConfig, amounts: Sequence[int]) -> list[dict[str, Any]]:
    """Return a row for each engine that came to the end."""
    if not curves:
        return []
    tokens = config.data.batch_size * config.model.context
    ends = np.cumsum(amounts)
    a_step = {
        engine: [statistics.median(curve["seconds"][end - n : end]) for end, n in zip(ends, amounts, strict=True)]
        for engine, curve in curves.items()
    }
    target = max(curve["evaluations"][-1]["loss"] for curve in curves.values())  # which all of them reach
    rows = []
    for engine, curve in curves.items():
        reached = next(e["step"] for e in curve["evaluations"] if e["loss"] <= target)
        last = curve["evaluations"][-1]
        row = {
            "engine": engine,
            "val_loss": last["loss"],
            "bits_per_byte": last["bits_per_byte"],
            "tokens_per_second": tokens / statistics.median(a_step[engine]),
            "target_loss": target,
            "seconds_to_target": sum(curve["seconds"][:reached]),
            "first_step_seconds": curve["seconds"][0],
            "peak_mib": curve["peak_mib"],
        }
        if turns.OURS in curves:
            ours = np.array(curves[turns.OURS]["losses"])
            row["ours_over_this"] = turns.ratio(a_step[engine], to=a_step[turns.OURS])
            row["largest_difference_of_losses"] = float(np.max(np.abs(np.array(curve["losses"]) / ours - 1)))
            row["difference_of_val_loss"] = curves[turns.OURS]["evaluations"][-1]["loss"] / last["loss"] - 1
        rows.append(row)
    return rows


def small_losses(seed: int, checkout: str, failures: list[dict[str, str]]) -> dict[str, float]:
    """Train both sides on 10,000 characters, on the same batches, from first weights that each draws by itself; return
    their losses on the held-out tenth."""
    text = "".join(piece for document in open_corpus(DATA).documents() for piece in document)[:SMALL_CHARACTERS]
    found, names = {}, (turns.OURS, EAGER)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.txt"
        path.write_text(text, encoding="utf-8")
        with (
            _prepared(SMALL, "cpu", checkout, seed=seed, own_weights=True, text=str(path)) as request,
            _engines(names, f"{SMALL_CHARACTERS:,} characters, seed {seed}", request, failures) as engines,
        ):
            for engine in names:
                trained = engines.ask(engine, "train", SMALL["steps"])
                evaluated = engines.ask(engine, "evaluate", SMALL_CHARACTERS)
                if trained and evaluated:
                    found[engine] = evaluated["loss"]
    return found


def _compare_small(checkout: str, failures: list[dict[str, str]]) -> dict[str, Any]:
    rows = []
    for seed in SEEDS:
        turns.progress(f"{NAME}: {SMALL_CHARACTERS:,} characters, seed {seed}")
        losses = small_losses(seed, checkout, failures)
        if len(losses) == 2:
            rows.append({"seed": seed, **losses, "difference": losses[turns.OURS] / losses[EAGER] - 1})
    return {"characters": SMALL_CHARACTERS, "settings": SMALL, "rows": rows}
