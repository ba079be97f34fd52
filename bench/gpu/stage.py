"""One stage, in a process of its own.

    python -m bench.gpu.stage NAME RECORD SETTINGS

RECORD is the file that results are added to, SETTINGS are `Settings` in JSON. Here is what an error in a stage means.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from pathlib import Path

from bench.gpu.engines import LeftOutError, is_out_of_memory
from bench.gpu.stages import LEFT_OUT, NO_MEMORY, Record, Settings

FUNCTIONS = {
    "machine": ("machine", "measure_machine"),
    "kernels": ("correctness", "check_kernels"),
    "gpt2": ("training", "measure_gpt2"),
    "small": ("training", "measure_small"),
    "decode": ("generation", "measure_decoding"),
    "profile": ("machine", "profile_step"),
    "loops": ("loops", "compare_loops"),
    "tests": ("tests", "run_tests"),
    "nanochat": ("d12", "measure_d12"),
    "shakespeare": ("shakespeare", "train_to_target"),
    "sanitizer": ("sanitizer", "sanitize"),
}
"""stage -> the module here and its function (settings, record): each stage imports its own only, as imports may fail"""


def run_stage(module: str, function: str, settings: Settings, record: Record) -> int:
    """Run a stage; return the status that its process ends with. What stopped it is a line of its record."""
    try:
        getattr(importlib.import_module(f"bench.gpu.{module}"), function)(settings, record)
    except LeftOutError as reason:
        record.say("stopped", outcome=LEFT_OUT, reason=str(reason))
    except Exception as error:
        traceback.print_exc()
        outcome = NO_MEMORY if is_out_of_memory(error) else "failed"
        cause = " ".join(str(error).split())[:500]
        record.say("stopped", outcome=outcome, reason=f"{type(error).__name__}: {cause}")
        return 1
    return 0


if __name__ == "__main__":
    name, path, settings = sys.argv[1:]
    sys.exit(run_stage(*FUNCTIONS[name], Settings(**json.loads(settings)), Record(Path(path))))
