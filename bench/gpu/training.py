"""Training, ours and PyTorch's, eager and compiled, in bfloat16: tokens a second in turns.

PyTorch has its fused attention and AdamW. Losses must agree first. For GPT-2 each engine has the batch that it is
fastest with.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from bench import turns
from bench.configurations import Configuration
from bench.gpu.engines import Engines, OutOfRoomError, open_engines
from bench.gpu.models import BATCHES, CONFIGURATIONS, TRIAL
from bench.gpu.stages import Record, Settings
from tinygrad_chat.models.size import flops_per_token

AGREEING = 20  # steps
TOLERANCE = 2e-2  # relative, between bfloat16 and bfloat16, or float32, after steps that each depend on the last
ROUND_SECONDS = 2.0
MIN_STEPS = 3  # of a round
ON_THE_HOST = "float32 on the host"
LARGEST_ON_THE_HOST = 1 << 16  # tokens times layers: it would take minutes for more


def measure_gpt2(settings: Settings, record: Record) -> None:
    """Compare the training of GPT-2 124M."""
    _measure_training(TRIAL if settings.trial else {"GPT-2 124M": CONFIGURATIONS["GPT-2 124M"]}, settings, record)


def measure_small(settings: Settings, record: Record) -> None:
    """Compare the training of the small models."""
    small = {name: CONFIGURATIONS[name] for name in ("S1", "mini-gpt")}
    _measure_training(TRIAL if settings.trial else small, settings, record)


def _measure_training(configurations: dict[str, Configuration], settings: Settings, record: Record) -> None:
    with open_engines(settings, record) as engines:
        for name, configuration in configurations.items():
            with turns.initial_weights(configuration) as weights:
                _compare_training(_Training(name, configuration, weights, engines), settings.rounds, record)


@dataclasses.dataclass(frozen=True)
class _Training:
    """A configuration that the engines train, from the same weights."""

    name: str
    configuration: Configuration
    weights: str
    engines: Engines

    def ask(self, engine: str, what: str, batch: int, steps: int, *, must_fit: bool = True) -> dict[str, Any] | None:
        """Return an engine's answer about that many steps with such a batch; None where it does not work."""
        sizes = dataclasses.replace(self.configuration, batch=batch).sizes
        request = {"what": what, "sizes": sizes, "weights": self.weights, "steps": steps}
        return self.engines.ask(engine, request, must_fit=must_fit)

    def seconds(self, engine: str, batch: int, steps: int, *, must_fit: bool = True) -> float | None:
        """Return the seconds of a step."""
        answer = self.ask(engine, "seconds", batch, steps, must_fit=must_fit)
        return None if answer is None else answer["seconds"]


def _compare_training(training: _Training, rounds: int, record: Record) -> None:
    name, engines = training.name, training.engines
    batches = BATCHES.get(name, (training.configuration.batch,))
    _expect_agreement(training, batches[0], record)
    chosen: dict[str, int] = {}
    counts: dict[str, int] = {}
    for engine in engines.names:
        if len(batches) > 1:
            engines.rest(but=engine)  # so that each has the whole device to itself
        batch = _fastest_batch(training, engine, batches)
        seconds = training.seconds(engine, batch, MIN_STEPS)
        if seconds is not None:
            chosen[engine], counts[engine] = batch, max(MIN_STEPS, int(ROUND_SECONDS / seconds))
            tokens = dataclasses.replace(training.configuration, batch=batch).tokens
            record.say("first", configuration=name, engine=engine, batch=batch, tokens_per_second=tokens / seconds)
    samples: dict[str, list[float]] = {engine: [] for engine in chosen}
    memory: dict[str, int] = {}
    for engine in turns.take_turns(list(chosen), rounds, f"gpu {name}"):
        answer = training.ask(engine, "seconds", chosen[engine], counts[engine])
        if answer is not None:
            memory[engine] = answer["memory"]
            samples[engine].append(answer["seconds"])
            record.say("round", configuration=name, engine=engine, seconds=answer["seconds"])
    for engine, seconds in samples.items():
        if len(seconds) == rounds:
            used = dataclasses.replace(training.configuration, batch=chosen[engine])
            record.say("training", **_row(name, engine, used, seconds, memory[engine], samples[turns.OURS], chosen))


def _row(
    name: str,
    engine: str,
    used: Configuration,
    seconds: Sequence[float],
    memory: int,
    ours: Sequence[float],
    chosen: dict[str, int],
) -> dict[str, Any]:
    """Return what an engine's rounds came to."""
    rates = [used.tokens / each for each in seconds]
    our_rates = [dataclasses.replace(used, batch=chosen[turns.OURS]).tokens / each for each in ours]
    return {
        "configuration": name,
        "engine": engine,
        "batch": used.batch,
        "sizes": used.sizes,
        "tokens_per_second": statistics.median(rates),
        "flops_per_second": flops_per_token(used.options, used.vocabulary) * statistics.median(rates),
        "peak_mib": memory / 2**20,
        "ours_over_this": turns.ratio(our_rates, to=rates),
        "tokens_per_second_samples": rates,
    }


def _expect_agreement(training: _Training, batch: int, record: Record) -> None:
    """Compare the losses of the first steps. A peer without losses like ours is not timed.

    Raises BenchmarkError where ours has not those of our own float32 on the host.
    """
    configuration, engines = training.configuration, training.engines
    losses: dict[str, list[float]] = {}
    for engine in engines.names:
        answer = training.ask(engine, "losses", batch, AGREEING)
        if answer is not None:
            losses[engine] = answer["losses"]
            found = {"losses": answer["losses"], "attention": answer["attention"]}
            record.say("losses", configuration=training.name, engine=engine, **found)
    if configuration.tokens * configuration.options.layers < LARGEST_ON_THE_HOST:
        losses[ON_THE_HOST] = _losses_on_the_host(configuration)
    for other, theirs in losses.items():
        both = {turns.OURS: losses[turns.OURS], other: theirs}
        try:
            turns.expect_agreement(f"gpu {training.name}", both, dict.fromkeys(both, TOLERANCE))
        except turns.BenchmarkError as error:
            if other not in engines.names or other == turns.OURS:
                raise
            engines.drop(other, str(error))


def _losses_on_the_host(configuration: Configuration) -> list[float]:
    """Return the losses of the same steps by our float32 on the CPU."""
    from bench.gpu.models import make_train_step
    from tinygrad_chat.backend import Compute

    step = make_train_step(configuration, Compute.choose("numpy"))
    return [float(step(configuration.draw(number), number).loss) for number in range(AGREEING)]


def _fastest_batch(training: _Training, engine: str, batches: Sequence[int]) -> int:
    """Return the batch with the most tokens a second that fits into the device's memory."""
    best, most = batches[0], 0.0
    for batch in batches if len(batches) > 1 else ():
        try:
            training.seconds(engine, batch, 2, must_fit=False)
            seconds = training.seconds(engine, batch, MIN_STEPS, must_fit=False)
        except OutOfRoomError:
            break
        if seconds is None or batch / seconds < most:
            break
        best, most = batch, batch / seconds
    return best
