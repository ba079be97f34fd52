"""The instructions of a compiled kernel's hottest loop, counted in what NVIDIA's disassembler prints.

A quarter of a multiprocessor issues one instruction a cycle, whatever it computes: addresses, masks and copies take
turns from the products on tensor cores. A count is no time: it leaves out what warps wait for.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tinygrad_chat.errors import BackendError

PACKAGE = "nvidia-cuda-nvdisasm"
PRODUCT = re.compile(r"HMMA|HGMMA")  # of a warp, or of four warps together
COPY = re.compile(r"LDGSTS|UTMALDG|UBLKCP")  # that is waited for later

KERNEL = re.compile(r"\.text\.(\w+):")
LABEL = re.compile(r"(\.L\w+):")
INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]{4,}\*/\s+(@!?U?P\w+\s+)?(([\w.]+)[^;]*);")
BRANCH = re.compile(r"BRA\b.*`\((\.L\w+)\)")


@dataclass(frozen=True)
class Loop:
    """A loop: all of its instructions, those on the way of most products and copies, and the products on that way."""

    instructions: int
    executed: int
    products: int


@dataclass(frozen=True)
class _Instruction:
    opcode: str
    target: str | None  # the label that it may branch to
    goes_on: bool  # whether the next one may come after it


def find_disassembler() -> str | None:
    """Return the path of nvdisasm: on the PATH, or from its wheel in the extra `nvrtc`."""
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        files = []
    return shutil.which("nvdisasm") or next((str(file.locate()) for file in files if file.name == "nvdisasm"), None)


def disassemble(cubin: bytes, disassembler: str) -> str:
    """Return the text of all kernels. Raises BackendError, with the disassembler's words, for what it cannot read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.cubin"
        path.write_bytes(cubin)
        done = subprocess.run([disassembler, "--print-code", path], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BackendError(f"nvdisasm refuses it: {done.stderr.strip()}")
    return done.stdout


def hottest_loops(text: str) -> dict[str, Loop]:
    """Return, for each kernel with products in a loop, the loop with most products; of those, the shortest."""
    found = {}
    for kernel, (code, places) in _kernels(text).items():
        loops = [
            _loop(code, places, head, end)
            for end, instruction in enumerate(code)
            if (head := places.get(instruction.target, end + 1)) <= end
        ]
        hottest = max(loops, key=lambda loop: (loop.products, -loop.instructions), default=None)
        if hottest and hottest.products:
            found[kernel] = hottest
    return found


def _kernels(text: str) -> dict[str, tuple[list[_Instruction], dict[str | None, int]]]:
    """Return the instructions of each kernel, and the places of labels among them."""
    kernels: dict[str, tuple[list[_Instruction], dict[str | None, int]]] = {}
    code, places = [], {}
    for line in text.splitlines():
        if named := KERNEL.match(line):
            code, places = kernels.setdefault(named[1], ([], {}))
        elif label := LABEL.match(line):
            places[label[1]] = len(code)
        elif found := INSTRUCTION.match(line):
            condition, words, opcode = found.groups()
            branch = BRANCH.match(words)
            always = re.fullmatch(r"EXIT\s*|BRA `\(\S+\)\s*", words) and not condition
            code.append(_Instruction(opcode, branch and branch[1], not always))
    return kernels


def _loop(code: list[_Instruction], places: dict[str | None, int], head: int, end: int) -> Loop:
    """Follow all ways from the head of a loop to its last instruction, which branches back; inner loops once."""
    best = {head: (0, 0, 0)}  # instruction -> most products before it, copies beside them, and fewest others, negated
    for place in range(head, end):
        if place not in best:
            continue
        instruction, (products, copies, others) = code[place], best[place]
        if PRODUCT.match(instruction.opcode):
            products += 1
        elif COPY.match(instruction.opcode):
            copies += 1
        else:
            others -= 1
        so_far = products, copies, others
        for following in (places.get(instruction.target, head), place + 1 if instruction.goes_on else head):
            if place < following <= end:
                best[following] = max(best.get(following, so_far), so_far)
    products, copies, others = best.get(end, (0, 0, 0))
    return Loop(end + 1 - head, products + copies - others + 1, products)
