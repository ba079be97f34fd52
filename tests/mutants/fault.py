"""A planted fault: one exact replacement in one file of the package, and the tests that must notice it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

PACKAGE = "tinygrad_chat"

PARTS = [import_module(f"{__package__}.{path.stem}") for path in sorted(Path(__file__).parent.glob("in_*.py"))]
"""The modules with the lists."""

# The tests of a file are those of its folder, but for what is proven elsewhere and for what would take long and is
# about something else; the longest name that fits counts.
TESTS_OF = {
    "cli": tuple(f"tests/cli/test_{name}.py" for name in ("markdown", "chat", "chat_display", "chat_training")),
    "cli/ranks.py": ("tests/cli/test_shared_evaluation.py",),
    "ops": ("tests/test_catalogue.py", "tests/ops"),
    "kernels": (
        "tests/test_catalogue.py::test_kernel_agrees_with_its_reference",
        "tests/kernels",
        "--ignore=tests/kernels/test_cuda.py",
    ),
    "kernels/cuda": tuple(
        f"tests/kernels/test_{name}.py" for name in ("cuda", "cuda_linears", "cuda_ownership", "flash_attention")
    ),
    "kernels/cuda/muon.py": ("tests/kernels/test_cuda_muon.py",),
    "kernels/cuda/muon.cu": ("tests/kernels/test_cuda_muon.py",),
    "kernels/cuda/cubins.py": ("tests/kernels/test_cubins.py",),
    "kernels/cuda/cache.py": ("tests/kernels/test_cuda_generation.py",),
    "kernels/cuda/cache.cu": ("tests/kernels/test_cuda_generation.py",),
    "kernels/cuda/flash_decoding.cu": ("tests/kernels/test_cuda.py", "tests/kernels/test_cuda_generation.py"),
    "kernels/cuda/plans.py": ("tests/kernels/test_cuda_plans.py",),
    "kernels/cuda/cublas_lt.py": ("tests/kernels/test_cuda_plans.py", "tests/kernels/test_cuda_products.py"),
    "training/products.py": ("tests/training/test_products.py",),
    "training": (
        "tests/training",
        "--ignore=tests/training/test_device.py",
        "--ignore=tests/training/test_faults.py",
    ),
    "experiments": tuple(f"tests/experiments/test_{name}.py" for name in ("jobs", "submission", "job")),
    "parallel/buckets.py": ("tests/parallel/test_communicator.py", "tests/kernels/test_cuda_linears.py"),
    "backend/nccl.py": ("tests/parallel/test_device.py",),
    "nn/cache.py": ("tests/nn/test_cache.py", "tests/inference/test_engine.py", "tests/models/test_captured_steps.py"),
    "models/captured_steps.py": ("tests/models/test_captured_steps.py",),
    "models/gpt.py": ("tests/models", "tests/inference/test_rows.py"),
    "text/inventory.py": ("tests/cli/test_data_command.py",),
    "text/conversations": ("tests/text/conversations", "tests/training/test_conversations.py"),
    "interchange/gguf.py": ("tests/interchange/test_gguf.py",),
    "interchange/gguf_blocks.py": ("tests/interchange/test_gguf_blocks.py",),
    "interchange/sampling.py": ("tests/interchange/test_sampling.py",),
    "interchange": tuple(f"tests/interchange/test_{name}.py" for name in ("exchange", "families", "opening")),
    "text/conversations/probing.py": ("tests/text/conversations/test_probing.py",),
    "text/conversations/template.py": ("tests/text/conversations",),
    "text/tokenizers/gguf.py": ("tests/interchange/test_exchange.py", "tests/interchange/test_gguf_tokenizer.py"),
    "text/embedded": ("tests/text/embedded",),
    "tasks/recall.py": ("tests/tasks/test_recall.py",),
    "runs/folder.py": ("tests/runs", "tests/training/test_moved_folder.py"),
    "runs/figures.py": ("tests/runs/test_figures.py",),
    "files": ("tests/files", "tests/training/test_faults.py"),
    "files/holding.py": ("tests/training/test_moved_folder.py",),
    "schema.py": ("tests/test_schema.py",),
    "seeds.py": ("tests/test_seeds.py",),
}


@dataclass(frozen=True)
class Fault:
    """In `file`, a path below the package, `old` is replaced by `new`; `what` says what is wrong then."""

    file: str
    what: str
    old: str
    new: str

    @property
    def tests(self) -> tuple[str, ...]:
        """What pytest is told to run: the tests that must fail."""
        fitting = [part for part in TESTS_OF if self.file == part or self.file.startswith(f"{part}/")]
        return TESTS_OF[max(fitting, key=len)] if fitting else (f"tests/{self.file.partition('/')[0]}",)

    def planted(self, root: Path) -> str:
        """Return the file with the fault in it. Raises ValueError unless what it replaces stands there once."""
        source = (root / PACKAGE / self.file).read_text(encoding="utf-8")
        if source.count(self.old) != 1:
            raise ValueError(
                f"{self.file}: {self.what}: expected {self.old!r} once, found it {source.count(self.old)} times"
            )
        return source.replace(self.old, self.new)


FAULTS = [
    Fault(file, what, *replaced)
    for part in PARTS
    for file, faults in part.FAULTS.items()
    for what, replaced in faults.items()
]


def faults_in(places: Sequence[str]) -> list[Fault]:
    """Return the faults in files or folders of the package; in all of it where none is named."""
    return [fault for fault in FAULTS if not places or any(_lies_in(fault.file, place) for place in places)]


def _lies_in(file: str, place: str) -> bool:
    place = place.removeprefix(f"{PACKAGE}/").rstrip("/")
    return file == place or file.startswith(f"{place}/")
