"""How a result is written: what was measured, beside what it was measured with."""

from __future__ import annotations

import json
import platform
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from tinygrad_chat.backend import Compute
from tinygrad_chat.machine.environment import describe_environment

RESULTS = Path(__file__).parent / "results"


def write_result(
    name: str, command: str, measured: dict[str, Any], *, packages: tuple[str, ...] = (), folder: Path = RESULTS
) -> Path:
    """Write <name>.json into `folder` and return its path. `packages` are the peers whose versions count."""
    environment = describe_environment(Compute.choose("numpy"))
    environment |= {"processor": _processor(), **{package: metadata.version(package) for package in packages}}
    environment.pop("arguments")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    result = {"command": command, "date": date.today().isoformat(), "environment": environment, **measured}
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
