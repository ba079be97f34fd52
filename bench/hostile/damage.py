"""Damage to what is on the disk: a file's content, by its kind, and what stands under its name."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

from bench.hostile.safetensors import changed_file
from bench.hostile.values import STRINGS, UNREADABLE, changed, json_bytes, toml_bytes

SIZES = (1 << 28, 1 << 33, 1 << 43)  # bytes of files that hold nothing and take no room on the disk
WRITTEN_ONLY = (".html", ".md", ".txt", "")  # few commands, or none, read these
Damage = tuple[str, list[Path]]
"""What was done, in words, and to which paths."""


def damage(folder: Path, below: Path, chance: random.Random) -> Damage:
    """Damage one file or folder below `below`, both relative to `folder`: most often what a file says."""
    named = sorted(path.relative_to(folder) for path in (folder / below).rglob("*"))
    files = [path for path in named if (folder / path).is_file() and not (folder / path).is_symlink()]
    what = chance.random()
    if what < 0.6 and files:
        path = chance.choices(files, [1 if path.suffix in WRITTEN_ONLY else 4 for path in files])[0]
        words = _say_otherwise(folder / path, chance)
        return f"{path}: {words}", [path, *_resign(folder, path, chance)]
    if what < 0.75 and files:
        path = chance.choice(files)
        words = _break(folder / path, folder / chance.choice(files), chance)
        return f"{path}: {words}", [path, *_resign(folder, path, chance)]
    if what < 0.92:
        path = chance.choice([below, *named])
        return f"{path}: {_replace(folder / path, chance)}", [path]
    return _add(folder, below, chance)


def _say_otherwise(file: Path, chance: random.Random) -> str:
    """Let a file hold something else of its own kind."""
    content = file.read_bytes()
    try:
        file.write_bytes(_otherwise(file.name, content, chance))
    except UNREADABLE:  # it was damaged before
        file.write_bytes(_broken(content, content, chance))
        return "broken once more"
    return "says otherwise"


def _otherwise(name: str, content: bytes, chance: random.Random) -> bytes:
    if name.endswith(".json"):
        return json_bytes(changed(json.loads(content), chance), indent=1)
    if name.endswith(".toml"):
        return toml_bytes(changed(tomllib.loads(content.decode()), chance))
    if name.endswith(".safetensors"):
        return changed_file(content, chance)
    lines = content.splitlines()
    if not lines:
        return chance.choice(STRINGS).encode(errors="surrogatepass")
    number = chance.randrange(len(lines))
    what = chance.random()
    if name.endswith(".jsonl") and what < 0.6:
        lines[number] = json_bytes(changed(json.loads(lines[number]), chance))
    elif what < 0.7:
        del lines[number]
    elif what < 0.8:
        lines *= chance.choice([2, 100])
    elif what < 0.9:
        lines[number] = chance.choice(STRINGS).encode(errors="surrogatepass")
    else:
        chance.shuffle(lines)
    return b"\n".join(lines) + b"\n"


def _break(file: Path, other: Path, chance: random.Random) -> str:
    """Cut a file, make it longer, change bytes, or put another file's content in its place."""
    theirs = other.read_bytes()
    file.write_bytes(_broken(file.read_bytes(), theirs, chance))
    return "broken"


def _broken(content: bytes, theirs: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(content) + 1)
    noise = chance.randbytes(chance.choice([1, 8, 100]))
    ways: list[Callable[[], bytes]] = [
        lambda: b"",
        lambda: content[:place],
        lambda: content[place:],
        lambda: content[:place] + noise + content[place + len(noise) :],
        lambda: content[:place] + noise + content[place:],
        lambda: content + bytes(chance.choice([1, 4096])),
        lambda: content * 2,
        lambda: theirs,
        lambda: chance.randbytes(len(content)),
        lambda: content.replace(b"\n", b"\r\n"),
        lambda: content.decode(errors="replace").encode(chance.choice(["utf-16", "utf-8-sig"])),
    ]
    return chance.choice(ways)()


def _replace(path: Path, chance: random.Random) -> str:
    """Put something of another kind where a file or folder stands, or forbid to look at it."""
    if chance.random() < 0.25 and not path.is_symlink():  # of a link, what it leads to would change
        path.chmod(0)
        return "without permissions"
    up = os.path.relpath(path.parents[_depth(path)] / "outside", path.parent)
    ways: dict[str, Callable[[], object]] = {
        "gone": lambda: None,
        "a folder": path.mkdir,
        "a pipe": lambda: os.mkfifo(path),
        "a file": lambda: path.write_bytes(b"x"),
        "empty": path.touch,
        "a huge file of nothing": lambda: _sparse(path, chance.choice(SIZES)),
        "a link to another's file": lambda: path.symlink_to(f"{up}/victim.txt"),
        "a link to another's folder": lambda: path.symlink_to(f"{up}/empty"),
        "a link to where nothing is": lambda: path.symlink_to(f"{up}/new"),
        "a link to itself": lambda: path.symlink_to(path.name),
        "a link to a device": lambda: path.symlink_to("/dev/zero"),
    }
    words = chance.choice(list(ways))
    remove(path)
    ways[words]()
    return words


def _depth(path: Path) -> int:
    """Return how many folders up from a path the folder is that holds `outside`."""
    return next(number for number, parent in enumerate(path.parents) if (parent / "outside").is_dir())


def _add(folder: Path, below: Path, chance: random.Random) -> Damage:
    """Add something that has a name of ours, or none that a name should have."""
    path = below / chance.choice(
        [
            ".lock",
            *(
                ".config.toml.tgc-partial",
                ".log.jsonl.tgc-partial",
                ".outcome.json.tgc-partial",
                ".report.html.tgc-partial",
            ),
            *("checkpoints/step-000005", "checkpoints/step-999999", f"checkpoints/step-{'9' * 30}", "tracker.json"),
            *(
                "checkpoints/.step-000005.tgc-partial",
                "samples/.step-000006.txt.tgc-partial",
                "samples/step-000004.txt",
            ),
            *("checkpoints/step-000005-temporary", "\x1b]0;owned\x07", "a\nb", "\u202egpj", "n" * 255, "; touch OWNED"),
        ]
    )
    target = folder / path
    if not target.parent.is_dir() or target.is_symlink() or target.exists():
        return f"{path}: could not be added", []
    newest = sorted((folder / below / "checkpoints").glob("step-*"))
    if path.name.startswith("step-") and newest and newest[-1].is_dir() and chance.random() < 0.5:
        shutil.copytree(newest[-1], target, symlinks=True)
        return f"{path}: a copy of {newest[-1].name}", [path]
    target.mkdir()
    return f"{path}: added, {_replace(target, chance)}", [path]


def _resign(folder: Path, path: Path, chance: random.Random) -> list[Path]:
    """Most often, give a checkpoint whose file was changed the digests of what it holds now."""
    checkpoint = (folder / path).parent
    sums = checkpoint / "SHA256SUMS"
    if path.name == sums.name or not sums.is_file() or chance.random() < 0.15:
        return []
    names = ("weights.safetensors", "optimizer.safetensors", "state.json")
    there = [name for name in names if (checkpoint / name).is_file()]
    lines = [f"{hashlib.sha256((checkpoint / name).read_bytes()).hexdigest()}  {name}\n" for name in there]
    sums.write_text("".join(lines), newline="\n")
    return [path.parent / sums.name]


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        try:
            file.truncate(size)
        except OSError:  # more than this file system has files of
            file.truncate(SIZES[0])


def remove(path: Path) -> None:
    """Remove what is at a path, whatever it is and whatever its permissions are."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        permit(path)
        shutil.rmtree(path)


def permit(folder: Path) -> None:
    """Allow to look into a folder and those below it."""
    folder.chmod(0o700)
    for inside in folder.iterdir():
        if inside.is_dir() and not inside.is_symlink():
            permit(inside)


def restore(path: Path, whole: Path, folder: Path) -> None:
    """Put what was whole back to its place in `folder`, or remove what was not there."""
    place = folder / path
    if not place.parent.is_dir():  # a checkpoint that was damaged and, being old, is gone
        return
    remove(place)
    source = whole / path
    if source.is_dir():
        shutil.copytree(source, place, symlinks=True)
    elif source.exists():
        shutil.copy2(source, place)
