"""A model of 10M parameters under load: tokens per second and the time to a first token of 1, 8 and 32 clients, beside
PyTorch with a key/value cache and the same weights, whose batches are as large; and an idle server's share of a core.

Each client asks for 128 tokens after a prompt of 64 that nobody has asked before, again and again. PyTorch's sequences
begin and end together, as a loop without a server has them. All take turns: beside PyTorch the server with the weights
as they are, and one each with quantised weights.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench import turns
from bench.configurations import CONFIGURATIONS, Configuration
from bench.serving.client import Client
from bench.serving.process import serving, train
from bench.serving.streams import spread
from tinygrad_chat.runs.lookup import open_checkpoint
from tinygrad_chat.runs.state import SavedModel

PEERS = ("torch eager", "torch compile")
STORED = ("float16", "int8")
SERVERS = {turns.OURS: (), **{f"{turns.OURS} {kind}": ("--weights", kind) for kind in STORED}}
"""By the name of its row: the flags of a server."""
ASKED = {1: 16, 8: 4, 32: 2}
"""By the number of clients: how often each asks in a round."""
PROMPT, NEW = 64, 128
TOLERANCE = 1e-3  # of log-probabilities
IDLE_SECONDS = 20.0
MAX_IDLE = 0.01  # of a core
OPTIONS = CONFIGURATIONS["10M"].options
FLAGS = f"--layers {OPTIONS.layers} --heads {OPTIONS.heads} --width {OPTIONS.width} --context {OPTIONS.context}"


def measure_load(folder: Path, rounds: int, loads: Sequence[int]) -> dict[str, Any]:
    """Return what each number of clients gets, and what the server takes while nobody asks."""
    once = "--steps 1 --batch-size 1 --eval-tokens 64 --tokenizer characters"
    run = train(folder / "10M", *FLAGS.split(), *once.split())
    saved = open_checkpoint(run, SavedModel.load, say=turns.progress)
    weights = folder / "weights.npz"
    np.savez(weights, **saved.weights)
    configuration = dataclasses.replace(CONFIGURATIONS["10M"], vocabulary=saved.tokenizer.size)
    engines = turns.present_engines(PEERS)
    with contextlib.ExitStack() as stack:
        begun = {
            name: stack.enter_context(serving(run, "--rows", str(max(loads)), *flags))
            for name, flags in SERVERS.items()
        }
        ports = {name: port for name, (port, _) in begun.items()}
        rows = []
        for load in loads:
            case = dataclasses.replace(configuration, batch=load)
            rows += asyncio.run(_measure_one(ports, load, case, weights, engines, rounds))
        process = begun[turns.OURS][1]
        idle = _idle_share(process)
        resident = process.memory_info().rss
    alone = {row["engine"]: row["tokens_per_second"] for row in rows if row["clients"] == 1}
    for row in rows:
        if row["engine"] in SERVERS and row["engine"] in alone:
            row["over_one_client"] = row["tokens_per_second"] / alone[row["engine"]]
    objections = [f"an idle server takes {idle:.1%} of a core"] if idle >= MAX_IDLE else []
    return {
        "prompt": PROMPT,
        "new": NEW,
        "model": f"tgc train {FLAGS} {once}",
        "rows": rows,
        "idle_share_of_a_core": idle,
        "resident_bytes": resident,
        "objections": objections,
    }


async def _measure_one(
    ports: Mapping[str, int],
    load: int,
    configuration: Configuration,
    weights: Path,
    engines: Sequence[str],
    rounds: int,
) -> list[dict[str, Any]]:
    title = f"load, {load} clients"
    random = np.random.default_rng(load)
    seconds: dict[str, list[float]] = {name: [] for name in (*ports, *engines)}
    first: dict[str, list[float]] = {name: [] for name in seconds}

    def prompts() -> list[list[int]]:
        return random.integers(configuration.vocabulary, size=(load, PROMPT)).tolist()

    commands = {engine: ("bench.decoder", engine, configuration.sizes, str(weights)) for engine in engines}
    with turns.open_workers(commands) as workers:
        turns.progress(f"{title}: comparing log-probabilities")
        await _expect_agreement(ports[turns.OURS], workers, prompts())
        for port in ports.values():
            await asyncio.gather(*(_ask_each(port, [prompt], []) for prompt in prompts()))
        for worker in workers.values():
            for _ in range(2):  # PyTorch may compile a second time
                worker.ask({"prompt": prompts(), "new": NEW})
        for engine in turns.take_turns(tuple(seconds), rounds, title):
            asked = [prompts() for _ in range(ASKED.get(load, 1))]
            if engine in ports:
                began = time.perf_counter()
                every = zip(*asked, strict=True)
                await asyncio.gather(*(_ask_each(ports[engine], given, first[engine]) for given in every))
                seconds[engine].append(time.perf_counter() - began)
            else:
                worker = workers[engine]
                seconds[engine].append(sum(worker.ask({"prompt": each, "new": NEW})["seconds"] for each in asked))
                first[engine] += (worker.ask({"prompt": each, "new": 1})["seconds"] for each in asked)
    tokens = load * ASKED.get(load, 1) * NEW
    return [
        {
            "clients": load,
            "engine": engine,
            "tokens_per_second": tokens / statistics.median(samples),
            "ours_over_this": turns.ratio(samples, to=seconds[turns.OURS]),
            "seconds_to_first_token": spread(first[engine]),
            "seconds": samples,
        }
        for engine, samples in seconds.items()
    ]


async def _ask_each(port: int, prompts: Sequence[Sequence[int]], first: list[float]) -> None:
    """Be a client who asks for what comes after one prompt after the other, greedily; note the seconds to each first
    token."""
    client = Client(port)
    for prompt in prompts:
        body = {"prompt": prompt, "max_tokens": NEW, "temperature": 0, "stream": True}
        answer = await client.ask("/v1/completions", {**body, "stream_options": {"include_usage": True}})
        written = answer.usage.get("completion_tokens")
        if answer.status != 200 or written != NEW:
            raise turns.BenchmarkError(f"expected {NEW} tokens, received {written}: {answer.status} {answer.body}")
        first.append(answer.first)
    await client.close()


async def _expect_agreement(port: int, workers: Mapping[str, turns.Worker], prompts: list[list[int]]) -> None:
    """Raise BenchmarkError where somebody else's probabilities of the first prompt's tokens are not the server's."""
    body = {"prompt": prompts[0], "echo": True, "logprobs": 0, "max_tokens": 0}
    client = Client(port)
    answer = await client.ask("/v1/completions", body)
    await client.close()
    ours = np.array(answer.body["choices"][0]["logprobs"]["token_logprobs"][1:])
    given = np.array(prompts)
    for engine, worker in workers.items():
        request = {"prompt": given[:, :1].tolist(), "forced": given[:, 1:].tolist()}
        logits = np.array(worker.ask(request)["logits"])[0]
        shifted = logits - logits.max(-1, keepdims=True)
        theirs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        difference = float(np.abs(theirs[np.arange(len(ours)), given[0, 1:]] - ours).max())
        if not difference <= TOLERANCE:
            raise turns.BenchmarkError(
                f"expected log-probabilities of {engine} within {TOLERANCE:.0e} of ours, "
                f"received a difference of {difference:.1e}; nothing was timed"
            )


def _idle_share(process: psutil.Popen) -> float:
    """Return the share of a core that the server takes while nobody asks."""
    time.sleep(2)
    before, began = process.cpu_times(), time.perf_counter()
    time.sleep(IDLE_SECONDS)
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / (time.perf_counter() - began)


def show_load(found: dict[str, Any]) -> None:
    print(f"{'clients':>11} {'':<22} {'tokens/s':>9} {'ours / this':>12} {'first token: median':>20} {'99 %':>8}")
    for row in found["rows"]:
        first, speed = row["seconds_to_first_token"], row["tokens_per_second"]
        print(
            f"{row['clients']:>11} {row['engine']:<22} {speed:>9,.0f} {row['ours_over_this']:>12.2f} "
            f"{1000 * first['median']:>17,.0f} ms {1000 * first['99th_percentile']:>5,.0f} ms"
        )
    for row in found["rows"]:
        if "over_one_client" in row:
            print(f"{row['clients']:>11} {row['engine']:<22} {row['over_one_client']:.2f} times one client", flush=True)
    print(f"idle        {found['idle_share_of_a_core']:.2%} of a core", flush=True)
