"""What the device can do, and where a step's time goes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from bench.gpu.engines import backend_of
from bench.gpu.models import CONFIGURATIONS, TRIAL, make_train_step
from bench.gpu.stages import Record, Settings
from tinygrad_chat.backend import Compute
from tinygrad_chat.machine.environment import describe_environment
from tinygrad_chat.machine.limits import measure_limits
from tinygrad_chat.profiling.profile import WatchedStep, profile
from tinygrad_chat.profiling.trace import write_trace

PROFILED_STEPS = 3


def measure_machine(settings: Settings, record: Record) -> None:
    """Say what the device is, and what it reaches in a large product and in a copy."""
    compute = Compute.choose(backend_of(settings))
    environment = describe_environment(compute)
    environment.pop("arguments", None)
    record.say("machine", **environment)
    record.say("limits", **dataclasses.asdict(measure_limits(compute)))


def profile_step(settings: Settings, record: Record) -> None:
    """Profile a step of GPT-2 124M; its trace is written beside the records."""
    ((name, configuration),) = TRIAL.items() if settings.trial else [("GPT-2 124M", CONFIGURATIONS["GPT-2 124M"])]
    compute = Compute.choose(backend_of(settings))
    step = WatchedStep(make_train_step(configuration, compute), lambda: configuration.draw(0))
    profiled = profile(step, PROFILED_STEPS, compute=compute, tokens=configuration.tokens)
    write_trace(Path(settings.folder) / "trace.json", profiled.spans, compute.backend)
    record.say("profile", configuration=name, batch=configuration.batch, **profiled.to_json())
