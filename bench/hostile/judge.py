"""What no command may do, whatever it is given: the verdict on how it ended."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bench.hostile.child import Ended
from tinygrad_chat.cli.app import CLOSED_PIPE
from tinygrad_chat.cli.interruption import SIGNALS
from tinygrad_chat.errors import TinygradChatError

LONGEST_LINE = 400  # characters
MAX_OUTPUT = 1 << 20  # characters
MAX_MEMORY = 200 << 20  # bytes beyond what the same command takes when all is well

TRACEBACK = re.compile(r"^(Traceback \(most recent|Exception ignored|Fatal Python error)", re.MULTILINE)
WARNING = re.compile(r"^.*: \w*Warning: .*", re.MULTILINE)
PLACE = re.compile(r'^  File ".*/(tinygrad_chat|site-packages|python[\d.]+)/(.+)", line \d+, in (\S+)', re.MULTILINE)
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control and bidi characters, but for the tab and the newline."""


def _codes() -> frozenset[int]:
    """Return the exit codes of the table in docs/runs.md; 1 is none of them."""
    found, kinds = {0, CLOSED_PIPE, *(128 + number for number in SIGNALS)}, [TinygradChatError]
    while kinds:
        kind = kinds.pop()
        found.add(kind.exit_code)
        kinds += kind.__subclasses__()
    return frozenset(found - {1})


CODES = _codes()


def objections(ended: Ended, *, usual_memory: int = 0) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with how a command ended: of which kind, and where or what.

    `usual_memory` is what the command takes beyond its start when all is well.
    """
    if ended.code is None:
        yield "hung", f"after {ended.seconds:.0f} s"
    elif ended.code < 0:
        yield "killed", f"by signal {-ended.code}"
    elif ended.code not in CODES:
        yield "exit code", str(ended.code)
    if TRACEBACK.search(ended.err):
        yield "traceback", _place(ended.err)
    elif ended.code and not ended.err.rstrip("\n").rpartition("\n")[2].startswith("tgc: "):
        yield "no explanation", f"exit code {ended.code}, last line {ended.err.rstrip()[-80:]!r}"
    for warning in WARNING.findall(ended.err)[:1]:
        yield "warning", re.sub(r"^.*/|:\d+", "", warning)[:120]
    if ended.memory > usual_memory + MAX_MEMORY:
        yield "memory", f"{(ended.memory - usual_memory) >> 20} MiB more"
    if len(ended.out) + len(ended.err) > MAX_OUTPUT:
        yield "flood", f"{len(ended.out) + len(ended.err):,} characters"
    judged = ended.err if is_data(ended) else ended.out + "\n" + ended.err
    longest = max(judged.split("\n"), key=len)
    if len(longest) > LONGEST_LINE:
        yield "long line", f"{len(longest):,} characters: {longest[:60]!r}"
    as_it_is = is_data(ended) and "--raw" in ended.arguments  # which was asked for
    yield from controls(ended.err if as_it_is else ended.out + ended.err, "output")


def is_data(ended: Ended) -> bool:
    """Return whether the standard output is no message: what a model writes, or JSON."""
    return bool({"sample", "chat"} & {*ended.arguments[:1]}) or "--json" in ended.arguments


def controls(text: str, what: str) -> Iterator[tuple[str, str]]:
    """Yield an objection where a text that is shown has characters that a terminal obeys."""
    found = sorted(set(FORBIDDEN.findall(text)))
    if found:
        yield "control characters", f"{what}: {' '.join(f'U+{ord(each):04X}' for each in found[:8])}"


def _place(err: str) -> str:
    """Return where a traceback ends in our code, and with which error."""
    after = err[[match.start() for match in TRACEBACK.finditer(err)][-1] :]
    last = after.rstrip().rpartition("\n")[2]
    kind = last.partition(":")[0][:60]
    places = PLACE.findall(after)
    ours = [f"{file}:{function}" for root, file, function in places if root == "tinygrad_chat"]
    others = [f"{file}:{function}" for _, file, function in places]
    return f"{kind} in {(ours or others or ['?'])[-1]}"
