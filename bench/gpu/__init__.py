"""Training and generation on one GPU, ours and PyTorch's, eager and compiled, in bfloat16.

PyTorch has its fused attention and AdamW. Losses must agree first, ours also with our own float32 on the host. Each
engine lives in a process of its own; they take turns. For GPT-2 each has the batch that it is fastest with. MFU is the
model's operations (12 L C T for attention, as in PaLM) over those that the device does in a large bfloat16 product,
measured in the same run. Under ten minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bench import turns
from bench.chart import Bars, draw_bars, times
from bench.configurations import Configuration
from bench.gpu.estimate import COUNTED, KNOWN, Roofs, estimate, table_of
from bench.gpu.models import BATCHES, CONFIGURATIONS, TRIAL
from bench.gpu_worker import ENGINES
from bench.record import write_result
from tinygrad_chat.errors import BackendError
from tinygrad_chat.models.size import flops_per_token

NAME = "gpu"
DECODED = {"S1": (1, 8), "GPT-2 124M": (1, 8)}
PROMPT, NEW = 16, 64  # tokens
DECODING_ROUNDS = 3
AGREEING = 20
TOLERANCE = 2e-2  # relative, between bfloat16 and bfloat16, or float32, after steps that each depend on the last
ROUND_SECONDS = 2.0
ROUNDS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    turns.add_arguments(parser)
    parser.set_defaults(rounds=ROUNDS)
    parser.add_argument("--trial", action="store_true", help="a tiny model on the CPU: does the measurement work?")
    on_paper = parser.add_argument_group("a step on paper, without a GPU")
    on_paper.add_argument("--estimate", action="store_true", help="count its launches, bytes and operations instead")
    on_paper.add_argument("--configurations", nargs="+", default=COUNTED, choices=KNOWN, metavar="NAME")
    for roof in dataclasses.fields(Roofs):
        flag, default = f"--{roof.name.replace('_', '-')}", roof.default
        on_paper.add_argument(
            flag, type=float, default=default, metavar="ROOF", help=f"{roof.metadata['help']} ({default:g})"
        )


def measure(arguments: argparse.Namespace) -> None:
    if arguments.estimate:
        roofs = Roofs(*(getattr(arguments, roof.name) for roof in dataclasses.fields(Roofs)))
        print("\n\n".join("\n".join(table_of(name, estimate(name, roofs))) for name in arguments.configurations))
        return
    device = "cpu" if arguments.trial else "cuda"
    engines = [name for name in turns.present_engines(tuple(ENGINES)) if not arguments.trial or name != "torch compile"]
    if not arguments.trial:
        _expect_gpu()
    with turns.open_workers({name: ("bench.gpu_worker", name, device) for name in engines}) as workers:
        described = {name: worker.ask({"what": "describe"}) for name, worker in workers.items()}
        limits = workers[turns.OURS].ask({"what": "limits"})
        rows = [
            row
            for name, configuration in (TRIAL if arguments.trial else CONFIGURATIONS).items()
            for row in _measure_training(name, configuration, workers, limits, arguments)
        ]
        decoded = [
            row
            for name, batches in ({"tiny": (2,)} if arguments.trial else DECODED).items()
            for batch in batches
            for row in _measure_decoding(name, batch, workers)
        ]
        largest = rows[-1]["configuration"]
        ours = next(row for row in rows if (row["configuration"], row["engine"]) == (largest, turns.OURS))
        for worker in workers.values():
            worker.ask({"what": "rest"})
        profile = _answer(workers[turns.OURS].ask({"what": "profile", "sizes": ours["sizes"]}), f"{largest}, profile")
    for line in _table(rows, decoded, limits, profile):
        print(line)
    measured = {"engines": described, "limits": limits, "training": rows, "decoding": decoded, "profile": profile}
    if arguments.trial and arguments.results == turns.RESULTS:
        print("a trial: nothing is written without --results FOLDER")
        return
    command, packages = turns.command_of(NAME, arguments), turns.peer_packages(engines)
    print(f"written: {write_result(NAME, command, measured, packages=packages, folder=arguments.results)}")
    _draw(rows, engines, arguments)


class OutOfRoomError(turns.BenchmarkError):
    """The device's memory does not hold a measurement."""


def _answer(answer: dict[str, Any], what: str) -> dict[str, Any]:
    """Return a worker's answer. Raises OutOfRoomError where it had no memory left."""
    if "out_of_memory" in answer:
        raise OutOfRoomError(f"{what}: expected room on the device, found none; nothing was written")
    return answer


def _expect_gpu() -> None:
    """Raise BackendError, in one line with the remedy, where ours or PyTorch has no GPU."""
    import torch

    from tinygrad_chat.backend import get_backend

    get_backend("cupy")
    if not torch.cuda.is_available():
        raise BackendError(f"PyTorch {torch.__version__} finds no GPU; install a build of it for CUDA")


def _measure_training(
    name: str,
    configuration: Configuration,
    workers: Mapping[str, turns.Worker],
    limits: Mapping[str, float],
    arguments: argparse.Namespace,
) -> list[dict[str, Any]]:
    with turns.initial_weights(configuration) as weights:

        def ask(engine: str, what: str, batch: int, steps: int) -> dict[str, Any]:
            sizes = dataclasses.replace(configuration, batch=batch).sizes
            request = {"what": what, "sizes": sizes, "weights": weights, "steps": steps}
            return _answer(workers[engine].ask(request), f"{name}, {engine}, a batch of {batch}")

        turns.progress(f"{NAME} {name}: comparing the losses of {AGREEING} steps")
        batches = BATCHES.get(name, (configuration.batch,))
        losses = {engine: ask(engine, "losses", batches[0], AGREEING)["losses"] for engine in workers}
        if configuration.tokens * configuration.options.layers < 1 << 16:  # the host would take minutes for more
            losses["float32 on the host"] = _losses_on_the_host(configuration)
        turns.expect_agreement(f"{NAME} {name}", losses, dict.fromkeys(losses, TOLERANCE))
        chosen = {}
        for engine in workers:
            for other in workers:
                if other != engine and len(batches) > 1:
                    workers[other].ask({"what": "rest"})  # so that each has the whole device to itself
            chosen[engine] = _fastest_batch(engine, batches, ask)
        samples: dict[str, list[float]] = {engine: [] for engine in workers}
        answers: dict[str, dict[str, Any]] = {}
        counts = {
            engine: max(3, int(ROUND_SECONDS / ask(engine, "seconds", chosen[engine], 3)["seconds"]))
            for engine in workers
        }
        for engine in turns.take_turns(list(workers), arguments.rounds, f"{NAME} {name}"):
            answers[engine] = ask(engine, "seconds", chosen[engine], counts[engine])
            samples[engine].append(answers[engine]["seconds"])
    rows = []
    for engine, seconds in samples.items():
        used = dataclasses.replace(configuration, batch=chosen[engine])
        rates = [used.tokens / each for each in seconds]
        flops = flops_per_token(used.options, used.vocabulary) * statistics.median(rates)
        rows.append(
            {
                "configuration": name,
                "engine": engine,
                "batch": used.batch,
                "sizes": used.sizes,
                "tokens_per_second": statistics.median(rates),
                "mfu": flops / limits["product_rate"],
                "peak_mib": answers[engine]["memory"] / 2**20,
                "final_loss_of_comparison": losses[engine][-1],
                "tokens_per_second_samples": rates,
            }
        )
    ours = next(row for row in rows if row["engine"] == turns.OURS)
    for row in rows:
        row["ours_over_this"] = turns.ratio(ours["tokens_per_second_samples"], to=row["tokens_per_second_samples"])
    return rows


def _losses_on_the_host(configuration: Configuration) -> list[float]:
    """Return the losses of the same steps by our float32 on the CPU."""
    from bench.worker import ENGINES as ON_THE_HOST

    step = ON_THE_HOST[turns.OURS].make(configuration, {})
    return [step(*configuration.draw(number)) for number in range(AGREEING)]


def _fastest_batch(engine: str, batches: Sequence[int], ask: Any) -> int:
    """Return the batch with the most tokens a second that fits into the device's memory."""
    best, most = batches[0], 0.0
    for batch in batches if len(batches) > 1 else ():
        try:
            ask(engine, "seconds", batch, 2)
            rate = batch / ask(engine, "seconds", batch, 3)["seconds"]
        except OutOfRoomError:
            break
        if rate < most:
            break
        best, most = batch, rate
    return best


def _measure_decoding(name: str, batch: int, workers: Mapping[str, turns.Worker]) -> list[dict[str, Any]]:
    configuration = dataclasses.replace((CONFIGURATIONS | TRIAL)[name], batch=batch)
    new = min(NEW, configuration.options.context - PROMPT)
    request = {"what": "decode", "sizes": configuration.sizes, "prompt": PROMPT, "new": new, "rounds": DECODING_ROUNDS}
    turns.progress(f"{NAME} {name}: generating {new} tokens for a batch of {batch}")
    rows = []
    with turns.initial_weights(configuration) as weights:
        for engine in workers:
            if engine != "torch compile":  # it compiles anew as the cache grows: bench decode has it
                answer = workers[engine].ask({**request, "weights": weights})
                seconds = _answer(answer, f"{name}, {engine}, generation")["seconds"]
                rate = batch * new / statistics.median(seconds[1:] or seconds)
                rows.append({"configuration": name, "batch": batch, "engine": engine, "tokens_per_second": rate})
    return rows


def _table(
    rows: Sequence[Mapping[str, Any]],
    decoded: Sequence[Mapping[str, Any]],
    limits: Mapping[str, float],
    profile: Mapping[str, Any],
) -> list[str]:
    lines = [f"{'training':<14} {'':<14} {'batch':>6} {'tokens/s':>11} {'MFU':>6} {'peak MiB':>9} {'ours / this':>12}"]
    lines += [
        f"{row['configuration']:<14} {row['engine']:<14} {row['batch']:>6} {row['tokens_per_second']:>11,.0f} "
        f"{row['mfu']:>6.1%} {row['peak_mib']:>9,.0f} {row['ours_over_this']:>12.2f}"
        for row in rows
    ]
    lines += ["", f"{'generation':<14} {'':<14} {'batch':>6} {'tokens/s':>11}"]
    lines += [
        f"{row['configuration']:<14} {row['engine']:<14} {row['batch']:>6} {row['tokens_per_second']:>11,.0f}"
        for row in decoded
    ]
    lines += ["", f"{'a step of ours':<20} {'forward ms':>11} {'backward ms':>12} {'share':>6}"]
    lines += [
        f"{row['name']:<20} {1000 * row['forward']:>11.3f} {1000 * row['backward']:>12.3f} "
        f"{(row['forward'] + row['backward']) / profile['step_seconds']:>6.1%}"
        for row in profile["rows"]
    ]
    tera, giga = limits["product_rate"] / 1e12, limits["bandwidth"] / 1e9
    return [*lines, "", f"products {tera:,.1f} TFLOP/s, copies {giga:,.0f} GB/s; {profile['bottleneck']}"]


def _draw(rows: Sequence[Mapping[str, Any]], engines: Sequence[str], arguments: argparse.Namespace) -> None:
    by_place = {(row["configuration"], row["engine"]): row for row in rows}
    names = list(dict.fromkeys(row["configuration"] for row in rows))
    bars = [
        Bars(
            engine,
            [1 / by_place[name, engine]["ours_over_this"] for name in names],
            [f"{by_place[name, engine]['tokens_per_second']:,.0f}" for name in names],
        )
        for engine in engines
    ]
    draw_bars(
        arguments.results,
        NAME,
        title="Training speed on one GPU",
        remark="length: relative to ours; figures: tokens per second",
        groups=names,
        bars=bars,
        ratios=[times(min(by_place[name, e]["ours_over_this"] for e in engines if e != turns.OURS)) for name in names],
        reference=1,
    )
