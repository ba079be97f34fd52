"""One try: a damaged copy of what is whole, the commands that meet it, and the verdict."""

from __future__ import annotations

import hashlib
import random
import shlex
import stat
import tempfile
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.hostile.child import Ended, attempt
from bench.hostile.command_lines import ARGUMENTS, NOWHERE, USUAL
from bench.hostile.damage import permit, remove, restore
from bench.hostile.judge import controls, objections
from bench.hostile.material import Material, last_weights
from bench.hostile.parts import PARTS, RESUME, Prepared
from tinygrad_chat.cli.app import COMMANDS
from tinygrad_chat.errors import DivergedError, UsageError

LOG = Path("runs/a/log.jsonl")


@dataclass(frozen=True)
class Trial:
    """A try by its part, its number and the seed: these decide everything about it."""

    part: str
    number: int
    seed: int

    @property
    def chance(self) -> random.Random:
        """What decides the damage."""
        return random.Random(f"{self.seed}/{self.part}/{self.number}")

    @property
    def command(self) -> str:
        """What repeats it."""
        return f"python -m bench hostile --seed {self.seed} --only {self.part}/{self.number}"


@dataclass
class Result:
    """How a try went. Each objection is its kind, its place and the number of the command."""

    trial: Trial
    damage: list[str]
    commands: list[dict[str, Any]] = field(default_factory=list)
    objections: list[tuple[str, str, int]] = field(default_factory=list)


def prepare(trial: Trial, material: Material, folder: Path) -> Prepared:
    """Make the folder of a try as it is before the commands."""
    material.copy(folder)
    return PARTS[trial.part](folder, trial.chance)


def usual_memory(material: Material, scratch: Path, *, left_out: Set[str] = frozenset()) -> dict[str, int]:
    """Return what each command takes, beyond its start, when all is well. Raises UsageError where it is not."""
    usual = {}
    for name in COMMANDS:
        if name in left_out or name in NOWHERE:  # a server that has all that it needs does not end
            continue
        with tempfile.TemporaryDirectory(dir=scratch) as parent:
            folder = Path(parent) / "usual"
            material.copy(folder)
            words = [word for pair in USUAL.get(name, {}).items() for word in pair]
            ended = attempt([name, *words, *ARGUMENTS.get(name, [])], folder)
        found = list(objections(ended, usual_memory=ended.memory))
        if ended.code != 0 or found:
            raise UsageError(f"tgc {name} fails with whole files: {found} {ended.err}")
        usual[name] = ended.memory
    return usual


@dataclass(frozen=True)
class Workshop:
    """Where tries are made, from which material, and how much memory each command takes that meets no damage.

    Commands that are `left_out` are not run.
    """

    material: Material
    scratch: Path
    usual: dict[str, int]
    left_out: frozenset[str] = frozenset()

    def attempt(self, trial: Trial) -> Result:
        """Make a try and judge it; its folder is gone afterwards."""
        parent = Path(tempfile.mkdtemp(dir=self.scratch))
        folder = parent / "try"
        try:
            prepared = prepare(trial, self.material, folder)
            prepared.commands = [command for command in prepared.commands if command[0] not in self.left_out]
            result = Result(trial, prepared.done)
            outside, has_log = digest(folder / "outside"), _has_content(folder / LOG)
            for command in prepared.commands:
                self._run(command, folder, result)
                if trial.part != "lines" and digest(folder / "outside") != outside:  # where nobody named it
                    result.objections.append(("outside", "something was written there", len(result.commands) - 1))
                    outside = digest(folder / "outside")
            if RESUME in prepared.commands:
                self._expect_nothing_lost(prepared, folder, result, has_log=has_log)
            return result
        finally:
            remove(parent)

    def _run(self, command: Any, folder: Path, result: Result) -> Ended:
        ended = attempt(command, folder)
        usual = self.usual.get(command[0], 0)
        found = list(objections(ended, usual_memory=usual))
        if ended.code == 0 and command[0] == "report":
            text = (folder / "runs" / "a" / "report.md").read_text(encoding="utf-8", errors="surrogateescape")
            found += controls(text, "report.md")
        if command == ("runs",) and "b" not in ended.out.split():
            found.append(("hidden", "tgc runs does not list the run that is whole"))
        result.objections += [(kind, place, len(result.commands)) for kind, place in found]
        result.commands.append(
            {
                "name": " ".join(word for word in command[:2] if not word.startswith(("a", "-")) or word == "--resume"),
                "line": shlex.join(command)[:2000],
                "code": ended.code,
                "seconds": round(ended.seconds, 2),
                "memory": max(0, ended.memory - usual),
                "out": ended.out[:5000],
                "err": ended.err[-5000:],
            }
        )
        return ended

    def _expect_nothing_lost(self, prepared: Prepared, folder: Path, result: Result, *, has_log: bool) -> None:
        """Where the damaged run could not go on, put its files back: it must then end as if nothing had happened.

        Where it has begun its log anew before it stopped, beside the damaged one or, without `has_log`, where there was
        none, the old one stays away: it would lack what the run has added since.
        """
        number = [tuple(command) for command in prepared.commands].index(RESUME)
        if result.commands[number]["code"] in (0, DivergedError.exit_code):  # it went on with what it was given
            return
        run = folder / "runs" / "a"
        if run.is_dir() and not run.is_symlink():
            permit(run)
        begun_anew = any(run.glob("log-damaged*")) or (not has_log and _has_content(folder / LOG))
        for path in sorted(set(prepared.damaged)):
            if not (begun_anew and path == LOG):
                restore(path, self.material.path, folder)
        ended = self._run(RESUME, folder, result)
        place = len(result.commands) - 1
        if ended.code != 0:
            result.objections.append(("lost", f"put back, the run does not go on: {ended.err[-200:]!r}", place))
            return
        for what, path, content in (
            ("weights", last_weights(run), self.material.weights),
            ("log", folder / LOG, self.material.log),
        ):
            if what == "log" and begun_anew:
                continue
            if not path.is_file() or path.read_bytes() != content:
                result.objections.append(("lost", f"put back, the run ends with other {what}", place))


def _has_content(file: Path) -> bool:
    """Return whether something is in a file, without opening what may be none."""
    try:
        return stat.S_ISREG(file.lstat().st_mode) and file.lstat().st_size > 0
    except OSError:
        return False


def digest(folder: Path) -> str:
    """Return a digest of what is in a folder, by name, kind and content."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        digest.update(f"{path.relative_to(folder)} {path.lstat().st_mode} {len(content)} ".encode() + content)
    return digest.hexdigest()
