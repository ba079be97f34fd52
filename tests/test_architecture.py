"""The layout, enforced: who may import whom, who may name what, and how long a file may get."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

import tinygrad_chat

PACKAGE = Path(tinygrad_chat.__file__).parent
MAX_LINES = 300

# Each part, a folder or a file of the package, imports only parts of earlier lines and itself: never a neighbour in its
# own line. Folders within a part have an order of their own.
ORDER = [
    {"errors"},
    {"seeds", "formatting", "files", "tools"},
    {"option"},
    {"schema"},
    {"backend", "pages"},
    {"autograd"},
    {"ops"},
    {"tensor"},
    {"drawing", "nn", "text"},
    {"optim", "models", "tasks"},
    {"config", "kernels", "parallel"},
    {"machine"},
    {"runs"},
    {"inference", "reports"},
    {"training"},
    {"evaluation", "experiments", "interchange", "planning", "profiling", "serving", "tracking"},
    {"api"},
    {"cli"},
    {"__main__"},
]
RANK = {part: rank for rank, parts in enumerate(ORDER) for part in parts}
WITHIN = {
    "kernels": [{"numpy"}, {"numba"}, {"cuda"}],  # what Numba's lack is NumPy's
    "text": [{"tokenizers"}, {"conversations"}, {"embedded", "formats"}],
    "training": [{"guards"}],
}
"""The folders within a part: each imports no later one. Files beside them import them, and may be imported by them."""

# What a student reads with Python's own library and nothing else.
PURE_PYTHON = {"autograd/fused.py", "models/scalar_gpt.py"}
PURE_LIBRARIES = sys.stdlib_module_names | {"tinygrad_chat.autograd.value", "tinygrad_chat.autograd.fused"}

# Where else a library may be named than nowhere.
HOME_OF_LIBRARY = {
    "typer": ("cli/",),
    "rich": ("cli/",),
    "matplotlib": ("drawing/png.py",),
    "cupy": ("backend/", "kernels/cuda/"),
    "cupyx": ("backend/", "kernels/cuda/"),
    "numba": ("kernels/numba/",),
    "llvmlite": ("kernels/numba/",),
    "pyarrow": ("text/formats/",),
    "mpi4py": ("parallel/mpi.py",),
    "huggingface_hub": ("text/hub.py", "interchange/hub.py"),
    "tomllib": ("schema.py",),
    "submitit": ("experiments/submission.py",),
    "starlette": ("serving/", "cli/serve.py"),
    "uvicorn": ("serving/", "cli/serve.py"),
}

# Each of these calls takes what cannot be read for what is not there, in one version of Python or another.
LOOKS = {"exists", "glob", "is_dir", "is_file", "isdir", "isfile", "iterdir", "lexists", "listdir", "rglob", "scandir"}
LOOKS_AT_THE_DISK = ("files/", "config/files.py")  # the latter at what is installed with it
# Who reads JSON: as the type of what a file must hold, a text to learn from, a request of our own.
READERS = {"schema.py", "text/formats/rows.py", "planning/first_steps.py", "text/processes.py"}


def objections(path: str, source: str) -> list[str]:
    """Everything about a module, at `path` below the package, that the layout does not allow."""
    tree = ast.parse(source)
    found = [
        *_import_objections(path, tree),
        *_order_objections(path, _imports(tree)),
        *_name_objections(path, tree),
    ]
    public = not Path(path).name.startswith("_") or Path(path).name == "__init__.py"
    if public and not ast.get_docstring(tree):
        found.append("has no docstring")
    if source.count("\n") > MAX_LINES:
        found.append(f"has more than {MAX_LINES} lines")
    return found


def _import_objections(path: str, tree: ast.Module) -> Iterator[str]:
    importer = Path(path).parts[0].removesuffix(".py")
    if importer not in RANK:
        yield f"{importer} has no place in the order"
        return
    for module in _imports(tree):
        library, *inner = module.split(".")
        if library == "":
            yield "imports relatively"
        elif path == "autograd/value.py" and library not in sys.stdlib_module_names:
            yield f"imports {library}, though it must run alone"
        elif path in PURE_PYTHON and not {library, ".".join(module.split(".")[:3])} & PURE_LIBRARIES:
            yield f"imports {module}, though it is to be pure Python"
        elif library == "tinygrad_chat":
            part = inner[0] if inner else "everything"
            if part != importer and RANK.get(part, len(ORDER)) >= RANK[importer] and part != "__version__":
                yield f"imports {part}, which is not to the left of {importer}"


def _order_objections(path: str, imported: Iterable[str]) -> Iterator[str]:
    """Objections to imports between the folders within a part."""
    part, *inner = Path(path).parts
    ranks = {folder: rank for rank, folders in enumerate(WITHIN.get(part, [])) for folder in folders}
    if len(inner) < 2:
        return
    if inner[0] not in ranks:
        yield f"{part}/{inner[0]} has no place in the order"
        return
    for module in imported:
        other = module.removeprefix(f"tinygrad_chat.{part}.").partition(".")[0]
        if module.startswith(f"tinygrad_chat.{part}.") and ranks.get(other, -1) > ranks[inner[0]]:
            yield f"imports {part}.{other}, which is not to the left of {part}.{inner[0]}"


def _imports(tree: ast.Module) -> Iterator[str]:
    """Dotted names of what is imported, anywhere in the module; relative ones begin with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _name_objections(path: str, tree: ast.Module) -> Iterator[str]:
    named = {module.split(".")[0] for module in _imports(tree)}
    named |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for library, homes in HOME_OF_LIBRARY.items():
        if library in named and not path.startswith(homes):
            yield f"names {library}"
    keywords = {keyword.arg for node in ast.walk(tree) if isinstance(node, ast.Call) for keyword in node.keywords}
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    if "expanduser" in attributes and path != "files/places.py":
        yield "calls expanduser: user_path of files/ takes any name"
    if path not in READERS and "json" in named and attributes & {"loads", "load", "JSONDecoder"}:
        yield "reads JSON: schema.py reads it as the type of what it must hold"
    if not path.startswith(LOOKS_AT_THE_DISK):
        yield from (
            f"calls {name}: files/ tells what is absent from what cannot be read" for name in sorted(LOOKS & attributes)
        )
    if "out" in keywords and not path.startswith("kernels/"):
        yield "passes out="


def circles(imports: Mapping[str, set[str]]) -> list[list[str]]:
    """Return groups of modules, each of which imports the others by some way, given what each imports.

    Tarjan's strongly connected components.
    """
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = lowest[module] = len(index)
        path.append(module)
        for imported in sorted(imports[module]):
            if imported not in index:
                visit(imported)
                lowest[module] = min(lowest[module], lowest[imported])
            elif imported in path:
                lowest[module] = min(lowest[module], index[imported])
        if lowest[module] == index[module]:
            group = path[path.index(module) :]
            del path[path.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in sorted(imports):
        if module not in index:
            visit(module)
    return found


def modules_imported(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Return what each module, dotted, imports of the others, anywhere in it; a name imported is its module."""
    found: dict[str, set[str]] = {}
    for name, source in sources.items():
        targets = set()
        for module in _imports(ast.parse(source)):
            while module and module not in sources:
                module = module.rpartition(".")[0]
            targets |= {module} - {"", name}
        found[name] = targets
    return found


@pytest.mark.profile("ci")
def test_no_two_files_import_each_other_in_a_circle():
    names = {
        path: f"tinygrad_chat.{path.removesuffix('.py').replace('/', '.')}".removesuffix(".__init__")
        for path in MODULES
    }
    sources = {
        name: (PACKAGE / path).read_text(encoding="utf-8") for path, name in names.items() if path != "__init__.py"
    }
    assert circles(modules_imported(sources)) == []


def test_a_circle_is_found_by_whatever_way_it_goes():
    sources = {
        "p.a": "from p import b",
        "p.b": "def late():\n    import p.c",
        "p.c": "from p.a import something",
        "p.d": "from p.c import other",
        "p": "",
    }
    assert circles(modules_imported(sources)) == [["p.a", "p.b", "p.c"]]
    assert circles(modules_imported({**sources, "p.c": "import os"})) == []


MODULES = sorted(str(file.relative_to(PACKAGE).as_posix()) for file in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", [path for path in MODULES if path != "__init__.py"])  # its names load on first use
def test_module_keeps_to_the_layout(path):
    assert objections(path, (PACKAGE / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "statement"),
    [
        ("tensor.py", "from tinygrad_chat import ops"),
        ("ops/new.py", "from tinygrad_chat.ops.broadcasting import sum_to"),
        ("models/new.py", "from tinygrad_chat.nn import Linear"),
        ("kernels/numba/new.py", "from tinygrad_chat.kernels.numpy import pointwise"),
        ("training/guards/new.py", "from tinygrad_chat.training.run import Run"),
        ("cli/new.py", "import rich, typer\nfrom tinygrad_chat import __version__\nfrom tinygrad_chat.text import x"),
        ("kernels/cuda/new.py", "import cupy\ncupy.add(1, 2, out=3)"),
        ("backend/new.py", "import cupyx"),
        ("autograd/value.py", "import heapq"),
    ],
)
def test_what_the_layout_allows_passes(path, statement):
    assert objections(path, f'"""A new module."""\n{statement}\n') == []


@pytest.mark.parametrize(
    ("path", "statement", "objection"),
    [
        ("ops/new.py", "from tinygrad_chat.tensor import Tensor", "imports tensor, which is not to the left of ops"),
        ("ops/new.py", "from tinygrad_chat import tensor", "imports tensor, which is not to the left of ops"),
        ("ops/new.py", "import tinygrad_chat.nn.layers as x", "imports nn, which is not to the left of ops"),
        (
            "ops/new.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tinygrad_chat.kernels import numpy",
            "imports kernels, which is not to the left of ops",
        ),
        (
            "ops/new.py",
            "def late():\n    from tinygrad_chat.models.gpt import GPT",
            "imports models, which is not to the left of ops",
        ),
        (
            "kernels/numpy/new.py",
            "import tinygrad_chat.training",
            "imports training, which is not to the left of kernels",
        ),
        ("nn/new.py", "from tinygrad_chat.optim import x", "imports optim, which is not to the left of nn"),
        ("nn/new.py", "from tinygrad_chat import GPT", "imports GPT, which is not to the left of nn"),
        ("cli/new.py", "import tinygrad_chat", "imports everything, which is not to the left of cli"),
        ("files.py", "from tinygrad_chat.seeds import x", "imports seeds, which is not to the left of files"),
        (
            "kernels/numpy/new.py",
            "from tinygrad_chat.kernels.numba import KERNELS",
            "imports kernels.numba, which is not to the left of kernels.numpy",
        ),
        (
            "inference/new.py",
            "import tinygrad_chat.training.run",
            "imports training, which is not to the left of inference",
        ),
        (
            "config/new.py",
            "from tinygrad_chat.runs.folder import x",
            "imports runs, which is not to the left of config",
        ),
        ("training/more/new.py", "pass", "training/more has no place in the order"),
        ("misc.py", "pass", "misc has no place in the order"),
        ("nn/new.py", "from . import layers", "imports relatively"),
        ("nn/new.py", "from .layers import Linear", "imports relatively"),
        ("autograd/value.py", "import numpy as np", "imports numpy, though it must run alone"),
        (
            "autograd/value.py",
            "from tinygrad_chat.errors import ShapeError",
            "imports tinygrad_chat, though it must run alone",
        ),
        ("training/new.py", "from rich.progress import track", "names rich"),
        ("training/new.py", "import typer", "names typer"),
        ("ops/new.py", "import cupy.cuda", "names cupy"),
        ("kernels/numpy/new.py", "def f(x): return cupy.exp(x)", "names cupy"),
        ("ops/new.py", "xp.exp(x, out=x)", "passes out="),
        (
            "runs/new.py",
            "import json\njson.loads('1')",
            "reads JSON: schema.py reads it as the type of what it must hold",
        ),
        ("runs/new.py", "import tomllib", "names tomllib"),
        ("cli/new.py", "path.expanduser()", "calls expanduser: user_path of files/ takes any name"),
        (
            "runs/new.py",
            "list(folder.glob('*'))",
            "calls glob: files/ tells what is absent from what cannot be read",
        ),
        ("ops/new.py", "\n" * 301, "has more than 300 lines"),
    ],
)
def test_what_the_layout_forbids_is_objected_to(path, statement, objection):
    assert objections(path, f'"""A new module."""\n{statement}\n') == [objection]


FOLDERS = sorted(path for path in MODULES if path.endswith("/__init__.py"))


@pytest.mark.parametrize("path", FOLDERS)
def test_a_folder_that_lists_its_files_lists_each(path):
    text = ast.get_docstring(ast.parse((PACKAGE / path).read_text(encoding="utf-8"))) or ""
    there = {file.name for file in (PACKAGE / path).parent.glob("*.py")} - {"__init__.py", "__main__.py"}
    if re.search(r"^\w+\.py {2}", text, re.MULTILINE):
        assert set(re.findall(r"(?<![/\w])\w+\.py\b", text)) == there


def test_public_module_without_a_docstring_is_objected_to():
    assert objections("ops/new.py", "x = 1\n") == objections("ops/__init__.py", "x = 1\n") == ["has no docstring"]
    assert objections("ops/_private.py", "x = 1\n") == []


IMPORTABLE = [
    module.name for module in pkgutil.walk_packages([str(PACKAGE)], "tinygrad_chat.", onerror=lambda name: None)
]


@pytest.mark.parametrize("name", [name for name in IMPORTABLE if not name.endswith("__main__")])
def test_every_module_can_be_imported_but_for_those_that_are_compiled_by_what_is_missing(name: str):
    if name.startswith("tinygrad_chat.kernels.numba") and find_spec("numba") is None:
        pytest.skip("Numba, the extra fast, is not installed")
    importlib.import_module(name)
