"""What an installation holds: every file that the package reads, and for an editable one a path, not an import hook."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

pytest.importorskip("setuptools", minversion="77")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a build reads: it leaves its own files beside it."""
    copy = tmp_path_factory.mktemp("project")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "tinygrad_chat", copy / "tinygrad_chat", ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def build(project: Path, kind: str) -> ZipFile:
    program = f"from setuptools import build_meta; print(build_meta.build_{kind}('{kind}'))"
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], cwd=project, check=True, capture_output=True)
    (wheel,) = (project / kind).glob("*.whl")
    return ZipFile(wheel)


@pytest.mark.profile("ci")
def test_editable_install_is_a_plain_path_which_type_checkers_follow(project):
    with build(project, "editable") as wheel:
        (path,) = (name for name in wheel.namelist() if name.endswith(".pth"))
        assert Path(wheel.read(path).decode().strip()).samefile(project)
        assert [name for name in wheel.namelist() if name.endswith(".py")] == []


@pytest.mark.profile("ci")
def test_wheel_holds_every_file_of_the_package_and_nothing_beside_it(project):
    with build(project, "wheel") as wheel:
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = {path.relative_to(project).as_posix() for path in (project / "tinygrad_chat").rglob("*") if path.is_file()}
    assert packed == files
    for kind in (".cu", ".cuh", ".toml", "py.typed"):
        assert any(name.endswith(kind) for name in packed)
