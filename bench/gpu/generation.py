"""Greedy generation, ours and PyTorch's, each with a cache: tokens a second in turns.

Ours as it is used, where a step is captured and replayed, and submitted call by call. What each engine thinks of given
tokens must agree first. Compiled, PyTorch would compile anew as the cache grows: bench decode has it.
"""

from __future__ import annotations

import dataclasses
import statistics
from dataclasses import dataclass
from typing import Any

from bench import turns
from bench.configurations import Configuration
from bench.gpu.engines import Engines, open_engines
from bench.gpu.models import CONFIGURATIONS, TRIAL
from bench.gpu.stages import Record, Settings

DECODED = {"S1": (1, 8), "GPT-2 124M": (1, 8)}
PROMPT, NEW = 16, 64  # tokens
AGREEING = 8  # tokens that each engine is asked about
TOLERANCE = 2e-2  # relative, of their losses, between bfloat16 and bfloat16 or float32
CALL_BY_CALL = f"{turns.OURS}, call by call"


def measure_decoding(settings: Settings, record: Record) -> None:
    """Compare greedy generation."""
    with open_engines(settings, record, compiled=False) as engines:
        for name, batches in ({"tiny": (2,)} if settings.trial else DECODED).items():
            for batch in batches:
                configuration = dataclasses.replace((CONFIGURATIONS | TRIAL)[name], batch=batch)
                with turns.initial_weights(configuration) as weights:
                    _compare(_Generation(name, configuration, weights, engines), settings.rounds, record)


@dataclass(frozen=True)
class _Generation:
    """What the engines generate, from the same weights. A version is an engine, or ours submitted call by call."""

    name: str
    configuration: Configuration
    weights: str
    engines: Engines

    @property
    def versions(self) -> list[str]:
        """Those whose engine still works, ours first."""
        return [turns.OURS, CALL_BY_CALL, *(name for name in self.engines.names if name != turns.OURS)]

    def ask(self, version: str, what: str, new: int) -> dict[str, Any] | None:
        """Return a version's answer about that many tokens; None where it does not work."""
        eager = version == CALL_BY_CALL
        request = {
            "what": what,
            "sizes": self.configuration.sizes,
            "weights": self.weights,
            "prompt": PROMPT,
            "new": new,
        }
        return self.engines.ask(turns.OURS if eager else version, {**request, "graph": not eager})


def _compare(generation: _Generation, rounds: int, record: Record) -> None:
    name, configuration = generation.name, generation.configuration
    _expect_agreement(generation, record)
    new = min(NEW, configuration.options.context - PROMPT)
    for version in generation.versions:
        generation.ask(version, "decode", new)
    samples: dict[str, list[float]] = {version: [] for version in generation.versions}
    for version in turns.take_turns(list(samples), rounds, f"gpu {name}, generation"):
        answer = generation.ask(version, "decode", new)
        if answer is not None:
            samples[version].append(answer["seconds"])
    for version, seconds in samples.items():
        if len(seconds) == rounds:
            found = {"configuration": name, "batch": configuration.batch, "engine": version, "seconds": seconds}
            rate = configuration.batch * new / statistics.median(seconds)
            record.say(
                "generation",
                **found,
                tokens_per_second=rate,
                ours_over_this=turns.ratio(seconds, to=samples[turns.OURS]),
            )


def _expect_agreement(generation: _Generation, record: Record) -> None:
    """Compare the losses of tokens that are read one at a time. A peer without losses like ours is not timed.

    Raises BenchmarkError where ours differ between replayed steps and eager ones.
    """
    losses: dict[str, list[float]] = {}
    for version in generation.versions:
        answer = generation.ask(version, "forced", AGREEING)
        if answer is not None:
            losses[version] = answer["losses"]
            record.say("forced", configuration=generation.name, engine=version, losses=answer["losses"])
    for version, theirs in losses.items():
        both = {turns.OURS: losses[turns.OURS], version: theirs}
        try:
            turns.expect_agreement(f"gpu {generation.name}, generation", both, dict.fromkeys(both, TOLERANCE))
        except turns.BenchmarkError as error:
            if version in (turns.OURS, CALL_BY_CALL):
                raise
            generation.engines.drop(version, str(error))
