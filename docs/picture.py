"""Make docs/pictures/first_run.png for the README: a training, a sample and the page of a graph, from the real program.

    pip install pyte pillow      # a terminal's screen, and a smaller PNG; Chromium must be on the PATH, too
    python docs/picture.py
    python docs/picture.py chat FOLDER

The second one makes docs/pictures/chat.png, a conversation with the model that `tgc chat` finds in a folder. The first
one also writes docs/pictures/first_run.txt, what the two commands had printed at their end. The README quotes lines of
it, which a test checks. It trains for as long as `tgc train` takes, so run it on a machine that has nothing else to do.
"""

from __future__ import annotations

import fcntl
import html
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Sequence
from pathlib import Path

import pyte
from PIL import Image

PICTURES = Path(__file__).parent / "pictures"
TRAIN = ["tgc", "train"]
SAMPLE = ["tgc", "sample", "--prompt", "The class ", "--seed", "2"]
CHAT = ["tgc", "chat", "--seed", "1"]
SAID = [
    *("What is the capital of France?", "What does str.split do?", "Which function sorts a list?"),
    *("What is 347 * 28?", "Spell giraffe.", "How many parameters do you have?"),
]
GRAPH = ["tgc", "graph", "tanh(a*b + c)", "--set", "a=2", "--set", "b=-3", "--set", "c=6.5"]
STEP = 3  # of the backward sweep, at which the graph's page is shown
COLUMNS = {"train": 91, "sample": 200, "chat": 91}  # the picture breaks the sample's lines, between words
ROWS = 13  # of a terminal that are shown
SHARE = 80  # percent of the training, at which its screen is shown
SIZE = 1240, 764  # pixels of the picture, before SCALE
SCALE = 2  # for screens with small pixels
COLORS = {
    "default": "#d8dee9",
    "cyan": "#8fd3e8",
    "green": "#a3d39c",
    "magenta": "#d7a6e0",
    "red": "#f28b82",
    "brightblack": "#5c6675",
}

ASKS = re.compile(rb"> (\x1b\[[?\d;]*[a-z])*$")

PAGE = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; width: 1240px; height: 764px; display: grid; grid-template: 1fr 424px / auto 427px; gap: 14px; }}
section {{ border: 1px solid #8b949e; border-radius: 10px; overflow: hidden; box-sizing: border-box; }}
h1, pre {{ font-family: "DejaVu Sans Mono", monospace; margin: 0; }}
h1 {{ font-size: 14px; padding: 8px 14px; }}
pre {{ font-size: 14px; line-height: 1.42; padding: 10px 14px; white-space: pre-wrap; }}
.terminal {{ background: #1e2430; color: #d8dee9; }}
.terminal h1 {{ color: white; background: #2b3342; }}
.graph {{ grid-column: 1 / 3; background: white; }}
.graph h1 {{ color: #1e2430; background: #e9ecef; }}
iframe {{ border: 0; width: 100%; height: 390px; }}
</style>
<section class="terminal"><h1>$ {train}</h1><pre>{train_screen}</pre></section>
<section class="terminal"><h1>$ {sample}</h1><pre>{sample_screen}</pre></section>
<section class="graph"><h1>$ {graph}</h1><iframe src="graph.html#{step}"></iframe></section>
"""


CHAT_PAGE = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; }}
pre {{ font: 14px/1.42 "DejaVu Sans Mono", monospace; margin: 0; padding: 10px 14px; white-space: pre; }}
pre {{ background: #1e2430; color: #d8dee9; border: 1px solid #8b949e; border-radius: 10px; }}
</style><pre>$ tgc chat
{screen}</pre>
"""


def record(command: Sequence[str], folder: Path, columns: int, says: Sequence[str] = ()) -> list[bytes]:
    """Run a command on a terminal of its own and return what it wrote there, piece by piece.

    Where it asks, with a `>` and a space, somebody says one line after the other, and then Ctrl-D.
    """
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.execvpe(command[0], command, os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    pieces, heard, coming = [], b"", iter([f"{line}\r" for line in says] + ["\x04"] * bool(says))
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # how Linux says that the command has ended
            break
        if not piece:
            break
        pieces.append(piece)
        heard += piece
        if ASKS.search(heard) and (line := next(coming, None)):
            time.sleep(0.2)  # until it listens
            os.write(terminal, line.encode())
            heard = b""
    if os.waitpid(process, 0)[1]:
        sys.exit(f"{' '.join(command)} failed:\n{b''.join(pieces).decode()}")
    return pieces


def show(pieces: Sequence[bytes], columns: int) -> pyte.Screen:
    """Return the screen of a terminal that has received these pieces."""
    screen = pyte.Screen(columns, 100)
    stream = pyte.ByteStream(screen)
    for piece in pieces:
        stream.feed(piece)
    return screen


def text_of(screen: pyte.Screen) -> str:
    """Return what is on a screen."""
    return "\n".join(line.rstrip() for line in screen.display).rstrip() + "\n"


def html_of(screen: pyte.Screen, rows: int = ROWS) -> str:
    """Return the first rows of a screen as HTML, with its colours."""
    lengths = [len(line.rstrip()) for line in screen.display[:rows]]
    cells = ([screen.buffer[y][x] for x in range(length)] for y, length in enumerate(lengths))
    return "\n".join("".join(map(_cell, row)) for row in cells)


def _cell(cell: pyte.screens.Char) -> str:
    weight = "; font-weight: bold" if cell.bold else ""
    return f'<span style="color: {_color(cell.fg)}{weight}">{html.escape(cell.data)}</span>'


def _color(name: str) -> str:
    return COLORS.get(name, f"#{name}" if re.fullmatch("[0-9a-f]{6}", name) else COLORS["default"])


def until(pieces: Sequence[bytes], percent: int) -> Sequence[bytes]:
    """Return the pieces up to the one in which the progress bar of the training has come this far."""
    shown = re.compile(rb"step [\d,]+ .*?(\d+)%")
    for number, piece in enumerate(pieces):
        if any(int(found) >= percent for found in shown.findall(piece)):
            return pieces[: number + 1]
    return pieces


def photograph(page: Path, picture: Path, size: tuple[int, int] = SIZE) -> None:
    """Take a picture of a page with Chromium, and make it small: a picture of text has few colours."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("expected Chromium on the PATH, found none")
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--allow-file-access-from-files"]
    options += [f"--window-size={size[0]},{size[1]}"]
    options += [f"--force-device-scale-factor={SCALE}", "--default-background-color=00000000"]
    options += ["--virtual-time-budget=3000", f"--screenshot={picture}", page.as_uri()]
    subprocess.run([browser, *options], check=True, capture_output=True)
    Image.open(picture).quantize(128, method=Image.Quantize.FASTOCTREE).save(picture, optimize=True)


def main() -> None:
    """Run the three commands, and make the picture and the text of them."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train, sample = record(TRAIN, folder, COLUMNS["train"]), record(SAMPLE, folder, COLUMNS["sample"])
        record(GRAPH, folder, COLUMNS["train"])
        page = folder / "picture.html"
        page.write_text(
            PAGE.format(
                train=html.escape(_command(TRAIN)),
                sample=html.escape(_command(SAMPLE)),
                graph=html.escape(_command(GRAPH)),
                train_screen=html_of(show(until(train, SHARE), COLUMNS["train"])),
                sample_screen=html_of(show(sample, COLUMNS["sample"])),
                step=STEP,
            ),
            encoding="utf-8",
        )
        photograph(page, PICTURES / "first_run.png")
    records = ((TRAIN, train), (SAMPLE, sample))
    text = "\n".join(f"$ {_command(command)}\n{text_of(show(pieces, 200))}" for command, pieces in records)
    (PICTURES / "first_run.txt").write_text(text, encoding="utf-8")


def picture_of_chat(folder: Path) -> None:
    """Make the picture of a conversation with the model that `tgc chat` finds in a folder."""
    screen = show(record(CHAT, folder, COLUMNS["chat"], SAID), COLUMNS["chat"])
    rows = len(text_of(screen).rstrip().removesuffix("\n>").splitlines())
    with tempfile.TemporaryDirectory() as name:
        page = Path(name) / "picture.html"
        page.write_text(CHAT_PAGE.format(screen=html_of(screen, rows)), encoding="utf-8")
        photograph(page, PICTURES / "chat.png", (round(COLUMNS["chat"] * 8.45) + 32, 20 * (rows + 1) + 24))
    (PICTURES / "chat.txt").write_text(f"$ tgc chat\n{text_of(screen)}", encoding="utf-8")


def _command(words: Sequence[str]) -> str:
    """Return a command as a person types it."""
    return " ".join(f'"{word}"' if re.search(r"[ ()*]", word) else word for word in words)


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            main()
        case ["chat", folder]:
            picture_of_chat(Path(folder))
        case _:
            sys.exit(__doc__)
