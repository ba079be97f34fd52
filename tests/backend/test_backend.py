"""Back ends by name, and the advice for machines that lack one. No GPU is needed: CuPy is played by a stand-in."""

from __future__ import annotations

import importlib.abc
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tinygrad_chat.backend import (
    Compute,
    array_module,
    backend_of,
    cupy_backend,
    get_backend,
    load_kernels,
    registry,
    to_host,
)
from tinygrad_chat.backend.registry import why_slower
from tinygrad_chat.errors import BackendError


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no test find, or leave, a back end that another has opened."""
    monkeypatch.setattr(registry, "_backend_of_type", dict(registry._backend_of_type))
    get_backend.cache_clear()
    yield
    get_backend.cache_clear()


class FarArray:
    """Stands in for cupy.ndarray."""


def pretend_cupy(monkeypatch: pytest.MonkeyPatch, *, gpu: bool) -> ModuleType:
    cupy: Any = ModuleType("cupy")
    cupy.__version__ = "14.0.0"
    cupy.ndarray = FarArray
    cupy.asnumpy = lambda array: np.zeros(3)
    cupy.cuda = SimpleNamespace(
        is_available=lambda: gpu,
        Device=lambda: SimpleNamespace(id=0, synchronize=lambda: None),
        runtime=SimpleNamespace(
            getDeviceProperties=lambda device: {"name": b"Pretend GPU", "major": 9, "minor": 0},
            runtimeGetVersion=lambda: 13000,
        ),
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return cupy


def pretend_machine(monkeypatch: pytest.MonkeyPatch, *, driver: int | None, wheels: list[str]) -> None:
    monkeypatch.setattr(cupy_backend, "driver_cuda_version", lambda: driver)
    monkeypatch.setattr(cupy_backend, "cupy_wheels", lambda: wheels)


def refusal() -> str:
    with pytest.raises(BackendError) as caught:
        get_backend("cupy")
    return str(caught.value)


# Names.


def test_numpy_lives_in_host_memory():
    numpy = get_backend("numpy")
    array = np.zeros(3)
    assert (numpy.name, numpy.device, numpy.xp) == ("numpy", "cpu", np)
    assert numpy.to_host(array) is array


def test_unknown_name_is_refused_with_the_names_that_exist():
    with pytest.raises(BackendError, match=r"^--backend: expected auto, numpy or cupy, received 'jax'$"):
        get_backend("jax")


def test_auto_is_numpy_without_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert get_backend("auto") is get_backend("numpy")


def test_auto_is_numpy_without_a_gpu(monkeypatch):
    pretend_cupy(monkeypatch, gpu=False)
    assert get_backend("auto") is get_backend("numpy")


@pytest.mark.parametrize("name", ["auto", "cupy"])
def test_working_gpu_is_found(monkeypatch, name):
    cupy = pretend_cupy(monkeypatch, gpu=True)
    backend = get_backend(name)
    assert (backend.name, backend.device, backend.xp) == ("cupy", "Pretend GPU", cupy)
    array = FarArray()
    assert backend_of(array) is backend
    assert array_module(array) is cupy
    np.testing.assert_array_equal(to_host(array), np.zeros(3))


def pretend_capability(cupy: Any, capability: tuple[int, int], cuda: int) -> None:
    properties = {"name": b"Pretend GPU", "major": capability[0], "minor": capability[1]}
    cupy.cuda.runtime = SimpleNamespace(getDeviceProperties=lambda device: properties, runtimeGetVersion=lambda: cuda)


@pytest.mark.parametrize(("capability", "cuda"), [((7, 0), 12090), ((7, 5), 13000), ((12, 0), 13010)])
def test_oldest_device_that_the_compiler_of_a_cuda_knows_is_found(monkeypatch, capability: tuple[int, int], cuda: int):
    pretend_capability(pretend_cupy(monkeypatch, gpu=True), capability, cuda)
    assert get_backend("cupy").device == "Pretend GPU"


@pytest.mark.parametrize(
    ("capability", "cuda", "reason", "remedy"),
    [
        (
            (6, 1),
            12090,
            "7.0 or newer for CUDA 12, found Pretend GPU with 6.1",
            "train on the CPU with --backend numpy",
        ),
        (
            (6, 1),
            13000,
            "7.5 or newer for CUDA 13, found Pretend GPU with 6.1",
            "train on the CPU with --backend numpy",
        ),
        (
            (7, 0),
            13000,
            "7.5 or newer for CUDA 13, found Pretend GPU with 7.0",
            "run: pip uninstall -y cupy-cuda13x && pip install 'tinygrad-chat[cuda12]'",
        ),
    ],
)
def test_device_that_is_too_old_is_refused_with_the_remedy(
    monkeypatch, capability: tuple[int, int], cuda: int, reason: str, remedy: str
):
    pretend_capability(pretend_cupy(monkeypatch, gpu=True), capability, cuda)
    pretend_machine(monkeypatch, driver=13000, wheels=THIRTEEN)
    assert refusal() == f"--backend cupy: expected a GPU of compute capability {reason}; {remedy}"


@pytest.mark.parametrize(
    ("variable", "devices"), [(None, ["0", "1"]), ("", ["0", "1"]), ("3,GPU-a", ["3", "GPU-a"]), ("3,5,9", ["3", "5"])]
)
def test_devices_are_called_what_a_process_is_told(monkeypatch, variable: str | None, devices: list[str]):
    cupy: Any = pretend_cupy(monkeypatch, gpu=True)
    cupy.cuda.runtime.getDeviceCount = lambda: 2
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert get_backend("cupy").visible_devices() == devices
    assert get_backend("numpy").visible_devices() == []


def test_backend_is_opened_once(monkeypatch):
    pretend_cupy(monkeypatch, gpu=True)
    assert get_backend("cupy") is get_backend("cupy")


# Arrays.


@pytest.mark.parametrize("array", [np.zeros(3), np.float32(1), np.ma.zeros(3)])
def test_arrays_of_numpy_and_its_subclasses_belong_to_numpy(array):
    assert backend_of(array) is get_backend("numpy")


@pytest.mark.parametrize("thing", [1.0, [1.0], FarArray()])
def test_what_is_no_array_is_refused_with_the_remedy(thing):
    expected = f"expected an array, received {type(thing).__name__}; wrap numbers in numpy.asarray first"
    with pytest.raises(TypeError, match=f"^{re.escape(expected)}$"):
        backend_of(thing)


# Advice.

NOTHING, TWELVE, THIRTEEN = [], ["cupy-cuda12x 14.0.0"], ["cupy-cuda13x 14.0.0"]
UNBUILT = ["cupy 14.0.0"]  # the source distribution


@pytest.mark.parametrize(
    ("driver", "wheels", "remedy"),
    [
        (12040, NOTHING, "run: pip install 'tinygrad-chat[cuda12]'"),
        (13000, NOTHING, "run: pip install 'tinygrad-chat[cuda13]'"),
        (14010, NOTHING, "run: pip install 'tinygrad-chat[cuda13]'"),
        (12040, THIRTEEN, "run: pip uninstall -y cupy-cuda13x && pip install 'tinygrad-chat[cuda12]'"),
        (13000, UNBUILT, "run: pip uninstall -y cupy && pip install 'tinygrad-chat[cuda13]'"),
        (
            13000,
            UNBUILT + TWELVE,
            "run: pip uninstall -y cupy cupy-cuda12x && pip install 'tinygrad-chat[cuda13]'",
        ),
        (11080, NOTHING, "the driver supports CUDA 11 only: update it to one for CUDA 12 or newer"),
        (
            None,
            NOTHING,
            "no NVIDIA driver was found: install one, then run: pip install 'tinygrad-chat[cuda12]' "
            "(or train on the CPU with --backend numpy)",
        ),
    ],
)
def test_advice_names_the_exact_wheel_for_the_driver(monkeypatch, driver, wheels, remedy):
    pretend_machine(monkeypatch, driver=driver, wheels=wheels)
    assert cupy_backend.advice() == remedy


def test_two_wheels_are_both_removed_because_each_owns_files_of_the_other(monkeypatch):
    # Removing one deletes the folder that both installed into, and pip then takes the other for installed.
    pretend_machine(monkeypatch, driver=12040, wheels=TWELVE + THIRTEEN)
    assert cupy_backend.advice() == (
        "run: pip uninstall -y cupy-cuda12x cupy-cuda13x && pip install 'tinygrad-chat[cuda12]'"
    )


def test_missing_cupy_is_one_line_with_reason_and_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    pretend_machine(monkeypatch, driver=12040, wheels=NOTHING)
    assert refusal() == "--backend cupy: CuPy is not installed; run: pip install 'tinygrad-chat[cuda12]'"


def test_missing_gpu_is_one_line_with_reason_and_remedy(monkeypatch):
    pretend_cupy(monkeypatch, gpu=False)
    pretend_machine(monkeypatch, driver=13000, wheels=TWELVE)
    assert refusal() == (
        "--backend cupy: CuPy 14.0.0 finds no usable GPU; check that nvidia-smi lists one, or "
        "run: pip uninstall -y cupy-cuda12x && pip install 'tinygrad-chat[cuda13]'"
    )


def test_broken_cupy_is_one_line_though_its_own_error_is_a_page(monkeypatch):
    class Broken(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, path: Any, target: Any = None) -> None:
            if name == "cupy":
                raise ImportError("\n====\nFailed to import CuPy.\n\nOriginal error:\n  libcublas.so.12: not found\n")

    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    pretend_machine(monkeypatch, driver=12040, wheels=TWELVE)
    message = refusal()
    assert message.startswith("--backend cupy: cupy-cuda12x 14.0.0 is installed but fails to import (")
    assert message.endswith("run: pip install 'tinygrad-chat[cuda12]'")
    assert "\n" not in message


def test_no_driver_is_a_driver_of_no_version(monkeypatch):
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(cupy_backend.ctypes, "CDLL", missing)
    assert cupy_backend.driver_cuda_version() is None


@pytest.mark.parametrize(("status", "version"), [(0, 12040), (100, None)])
def test_driver_is_asked_for_its_version(monkeypatch, status, version):
    def get_version(pointer: Any) -> int:
        pointer._obj.value = 12040
        return status

    monkeypatch.setattr(cupy_backend.ctypes, "CDLL", lambda name: SimpleNamespace(cuDriverGetVersion=get_version))
    assert cupy_backend.driver_cuda_version() == version


def test_the_driver_is_looked_for_without_another_process(monkeypatch):
    """Each command on a CPU looks for it; ctypes' own search may take a compiler and a linker."""

    def started(*arguments: Any, **settings: Any) -> None:
        raise AssertionError(arguments)

    monkeypatch.setattr(subprocess, "Popen", started)
    cupy_backend.driver_cuda_version()


@pytest.mark.profile("ci")
def test_no_public_name_imports_cupy(tmp_path):
    (tmp_path / "cupy.py").write_text("raise SystemExit('cupy was imported')")
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import tinygrad_chat
for name in tinygrad_chat.__all__:
    getattr(tinygrad_chat, name)
assert "cupy" not in sys.modules
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_choosing_numpy_tunes_the_allocator_once(monkeypatch):
    calls: list[int] = []
    monkeypatch.setattr(registry, "keep_freed_memory", lambda: calls.append(1))
    get_backend.cache_clear()
    for _ in range(3):
        get_backend("numpy")
    assert calls == [1]


# Choices.


@pytest.fixture
def without_numba(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "numba", None)
    for module in [name for name in sys.modules if name.startswith("tinygrad_chat.kernels.numba")]:
        monkeypatch.delitem(sys.modules, module)
    load_kernels.cache_clear()
    yield
    load_kernels.cache_clear()


BROKEN = "raise OSError('libllvmlite.so: cannot be opened')"
INCOMPLETE = "import llvmlite_is_not_there"


@pytest.mark.profile("ci")
@pytest.mark.skipif(find_spec("numba") is None, reason="Numba, the extra fast, is not installed")
@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("NUMBA_DISABLE_JIT", "1", "NUMBA_DISABLE_JIT is set"),
        ("NUMBA_NUM_THREADS", "0", "Number of threads specified must be > 0"),
        ("PYTHONPATH", BROKEN, "libllvmlite.so: cannot be opened"),
        ("PYTHONPATH", INCOMPLETE, "No module named 'llvmlite_is_not_there'"),
    ],
)
def test_a_compiler_that_is_off_or_broken_leaves_the_kernels_that_need_none(
    tmp_path: Path, variable: str, value: str, reason: str
):
    if variable == "PYTHONPATH":
        (tmp_path / "numba").mkdir()
        (tmp_path / "numba" / "__init__.py").write_text(value)
        value = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    program = (
        "from tinygrad_chat.backend.compute import Compute; from tinygrad_chat.backend.registry import why_slower; "
        "chosen = Compute.choose('numpy'); print(chosen.kernels, why_slower(chosen.backend, chosen.kernels))"
    )
    environment = {**os.environ, variable: value}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"numpy needs numba, which fails to import ({reason}")
    assert done.stdout.count("\n") == 1
    assert ("unset NUMBA_" in done.stdout) == variable.startswith("NUMBA_")


def test_nothing_is_amiss_where_no_compiler_is_installed(without_numba: None):
    assert why_slower(get_backend("numpy"), "numpy") is None


def test_reference_has_no_kernels_and_others_have_those_of_their_name():
    reference, numpy = (Compute.choose("numpy", name) for name in ("reference", "numpy"))
    assert (reference.kernels, reference.kernel_table) == ("reference", {})
    assert (numpy.kernels, numpy.kernel_table) == ("numpy", load_kernels("numpy"))


def test_auto_is_resolved_to_the_fastest():
    chosen = Compute.choose("numpy")
    assert chosen == Compute(get_backend("numpy"), "numba" if find_spec("numba") else "numpy", "float32")
    assert chosen == Compute.choose("numpy", chosen.kernels, chosen.dtype)


def test_a_back_end_takes_no_settings():
    numpy = get_backend("numpy")
    before = dict(vars(numpy))
    Compute.choose("numpy", "reference")
    assert vars(numpy) == before == {}


@pytest.mark.usefixtures("without_numba")
def test_auto_does_without_the_compiler():
    assert Compute.choose("numpy").kernels == "numpy"


@pytest.mark.usefixtures("without_numba")
def test_kernels_that_need_more_than_is_installed_name_the_extra():
    with pytest.raises(
        BackendError,
        match=r"^--kernels numba: needs numba, which fails to import \(.*\); "
        r"run: pip install -U 'tinygrad-chat\[fast\]'$",
    ):
        Compute.choose("numpy", "numba")


def test_kernels_of_another_back_end_are_refused():
    with pytest.raises(
        BackendError, match=r"^--kernels: expected auto, reference, numba, numpy with --backend numpy, received cuda$"
    ):
        Compute.choose("numpy", "cuda")
