"""What is compiled: it lets other threads run, it is kept where there is room, the first use computes the same bits as
later ones, and its exponential is exact enough."""

from __future__ import annotations

import ast
import errno
import importlib
import math
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from llvmlite.binding import ObjectFileRef
from numba.core.dispatcher import Dispatcher

import tinygrad_chat
from tests.catalogue import Case
from tests.layouts import EXAMPLES, Layout, lay_out_case
from tests.profiles import CI, DEEP
from tinygrad_chat import Tensor, ops
from tinygrad_chat.autograd import kernels_of
from tinygrad_chat.backend import load_kernels
from tinygrad_chat.kernels.numba import pointwise
from tinygrad_chat.kernels.numba.compilation import compiled
from tinygrad_chat.kernels.numba.exponential import exponential
from tinygrad_chat.optim.adamw import adamw_update


@compiled
def apply(x, out):
    for i in range(x.size):
        out[i] = exponential(x[i])


def test_the_exponential_is_within_two_units_in_the_last_place():
    x = np.linspace(-87, 88, 200_001).astype(np.float32)
    found = np.empty_like(x)
    apply(x, found)
    exact = np.exp(x.astype(np.float64))
    assert np.max(np.abs(found - exact) / np.spacing(exact.astype(np.float32))) < 2


def test_kernels_let_other_threads_run():
    for kernel in (pointwise._gelu, pointwise._gelu_backward, apply):
        assert kernel.targetoptions["nogil"]


def test_a_full_disk_where_machine_code_is_kept_stops_nobody(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile.save", full)

    @compiled
    def halve(x):
        return x / 2

    assert halve(3.0) == 1.5
    assert math.isfinite(halve(1.0))


@CI
def test_machine_code_is_kept_until_a_file_that_went_into_it_changes(tmp_path: Path):
    package = Path(tinygrad_chat.__file__).parent
    shutil.copytree(package, tmp_path / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path / package.name / "kernels" / "numba"
    head = "from tinygrad_chat.kernels.numba.compilation import compiled\n"
    (folder / "inner.py").write_text(head + "@compiled\ndef inner(): return FACTOR\nFACTOR = 2\n")
    (folder / "middle.py").write_text("from tinygrad_chat.kernels.numba.inner import inner\n")
    (folder / "outer.py").write_text(
        head + "from tinygrad_chat.kernels.numba.middle import inner\n@compiled\ndef outer(x): return inner() * x\n"
    )

    def computed() -> str:
        asked = (
            "from tinygrad_chat.kernels.numba.outer import outer as f; print(f(10), sum(f.stats.cache_hits.values()))"
        )
        return subprocess.check_output([sys.executable, "-c", asked], cwd=tmp_path, text=True, env=clean).strip()

    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "NUMBA_CACHE_DIR")}
    assert (computed(), computed()) == ("20 0", "20 1")
    (folder / "inner.py").write_text((folder / "inner.py").read_text().replace("FACTOR = 2", "FACTOR = 30"))
    assert computed() == "300 0"


def test_what_compiled_functions_call_is_compiled_into_them():
    """There is one copy of a function in a process, whichever of its callers was compiled or loaded first."""
    called, inlined, compiled_alone = set(), set(), set()
    for file in Path(pointwise.__file__).parent.glob("*.py"):
        statements = ast.parse(file.read_text("utf-8")).body
        imports = (each for each in statements if isinstance(each, ast.ImportFrom))
        home = {name.name: (each.module or "").rpartition(".")[2] for each in imports for name in each.names}
        for function in (each for each in statements if isinstance(each, ast.FunctionDef)):
            decorators = {name.id for part in function.decorator_list for name in _names(part)}
            if "inlined" in decorators:
                inlined.add((file.stem, function.name))
            elif decorators & {"compiled", "compiled_for_threads"}:
                compiled_alone.add((file.stem, function.name))
            else:
                continue
            names = [name.id for each in ast.walk(function) if isinstance(each, ast.Call) for name in _names(each.func)]
            called.update((home.get(name, file.stem), name) for name in names)
    assert len(inlined) > 10
    assert len(compiled_alone) > 10
    assert called & compiled_alone == set()


def _names(tree: ast.AST) -> list[ast.Name]:
    return [each for each in ast.walk(tree) if isinstance(each, ast.Name)]


FIRST_USE = """
import hashlib
import numpy as np
from tinygrad_chat import ops
from tinygrad_chat.backend import load_kernels
from tinygrad_chat.optim.adamw import adamw_update

random = np.random.default_rng(0)
kernels, found = load_kernels("numba"), hashlib.sha256()
for tokens, width in ((64, 64), (3, 8)):
    q, k, v, d_out = random.normal(size=(4, 8, tokens, width)).astype(np.float32)
    out, backward = kernels[ops.attention](q, k, v, heads=2)
    for array in (out, *backward(d_out)):
        found.update(array.tobytes())
arrays = np.abs(random.normal(size=(4, 1000))).astype(np.float32)
kernels[adamw_update](*arrays, [0.9, 0.01, 0.1, 0.05, 1.1, 1e-8], decayed=300)
found.update(arrays.tobytes())
print(found.hexdigest())
"""


@DEEP
def test_the_first_use_computes_the_same_bits_as_later_ones(tmp_path: Path):
    """The first process compiles these kernels, which are made of several functions, and the second one loads them."""
    command, kept = [sys.executable, "-c", FIRST_USE], {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = (subprocess.check_output(command, env=kept) for _ in range(2))
    assert first == second


random = np.random.default_rng(0)
x, gain, angles = random.normal(size=(2, 3, 4)).astype(np.float32), np.ones(4, np.float32), ops.rotary_angles(3, 4)
CALLS = {
    ops.attention: Case((x, x, x), {"heads": 2}),
    ops.cross_entropy: Case((x, np.ones((2, 3), np.int64))),
    ops.embedding: Case((x[0], np.array([[0, 2], [1, 1]]))),
    ops.gelu: Case((x,)),
    ops.layernorm: Case((x, gain, gain)),
    ops.rmsnorm: Case((x, gain)),
    ops.rotary: Case((x,), {"cosine": angles[0], "sine": angles[1]}),
    ops.squared_relu: Case((x,)),
    ops.swiglu: Case((x, x)),
}


@pytest.mark.parametrize("op", CALLS, ids=lambda op: op.name)
def test_arrays_of_every_layout_share_one_compiled_form(op):
    """Each read-only array, each with gaps, would cost a second of compiling otherwise."""
    module = importlib.import_module(load_kernels("numba")[op].__module__)
    dispatchers = [each for each in vars(module).values() if isinstance(each, Dispatcher)]
    seen = []
    for layout in (Layout(), *EXAMPLES.values()):
        there = lay_out_case(CALLS[op], [layout])
        with kernels_of("numba"):
            out = op(*(y if y.dtype.kind == "i" else Tensor(y) for y in there.inputs), **there.options)
            out.backward(layout.lay_out(np.ones(out.shape, np.float32)))
        seen.append([len(each.signatures) for each in dispatchers])
    assert seen == seen[:1] * len(seen)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="machine code is read as it is kept on Linux")
def test_machine_code_holds_no_function_that_other_machine_code_holds(monkeypatch):
    """Numba would keep a copy of what a kernel calls beside the kernel."""
    monkeypatch.setattr("tinygrad_chat.kernels.numba.small_attention.SMALL", 0)
    arrays = np.abs(random.normal(size=(4, 10))).astype(np.float32)
    load_kernels("numba")[adamw_update](*arrays, [0.9, 0.01, 0.1, 0.05, 1.1, 1e-8], decayed=3)
    with kernels_of("numba"):
        ops.softmax(Tensor(x))
        ops.attention(*(Tensor(np.ones((1, 2, 16), np.float32)) for _ in range(3)), heads=1)
    loaded = [sys.modules[name] for name in sys.modules if name.startswith("tinygrad_chat.kernels.numba.")]
    seen = 0
    for kernel in {each for module in loaded for each in vars(module).values() if isinstance(each, Dispatcher)}:
        parts = [*kernel.__module__.split("."), kernel.__name__]
        own = f"_ZN{''.join(f'{len(part)}{part}' for part in parts)}B".encode()
        cache: Any = kernel._cache  # pyright: ignore[reportAttributeAccessIssue]
        for file in cache._cache_file._load_index().values():
            found = functions(Path(cache.cache_path, file).read_bytes())
            assert [name for name in found if name.startswith(b"_ZN13tinygrad_chat")] == [
                name for name in found if name.startswith(own)
            ]
            seen += 1
    assert seen > 3


def functions(kept: bytes) -> list[bytes]:
    """Return the names of the functions in the ELF file that Numba has kept."""
    file = ObjectFileRef.from_data(kept[kept.index(b"\x7fELF") :])
    sections = {section.name(): section.data() for section in file.sections()}
    names, function = sections[b".strtab"], 2
    return [
        names[start : names.index(b"\0", start)]
        for start, kind, _, section, _, _ in struct.iter_unpack("<IBBHQQ", sections[b".symtab"])
        if kind & 15 == function and section  # or it is only called here
    ]
