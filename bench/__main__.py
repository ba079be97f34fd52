"""`python -m bench MEASUREMENT`: the command line of the measurements."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Iterable

from tinygrad_chat.errors import TinygradChatError

MEASUREMENTS = (
    *(
        "step",
        "train",
        "distributed",
        "rank_deaths",
        "decode",
        "interchange",
        "chat_speed",
        "upstream",
        "gpu",
        "kernels",
    ),
    *(
        "scaling",
        "memory",
        "startup",
        "ops",
        "scalar",
        "quality",
        "survival",
        "hostile",
        "plan",
        "packing",
        "tokenizer",
    ),
    *("chat", "reinforcement", "serve", "chart"),
)
MODULES = {"serve": "serving", "chart": "overview"}
"""measurement -> its module, where it is called otherwise"""


def make_parser(names: Iterable[str] = MEASUREMENTS) -> argparse.ArgumentParser:
    """Return the parser of the command line, with a subcommand for each measurement or for those of `names`."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure, print a table, write JSON.")
    measurements = parser.add_subparsers(required=True, metavar="MEASUREMENT")
    for name in names:
        module = importlib.import_module(f"bench.{MODULES.get(name, name)}")  # some need more packages than others
        description = str(module.__doc__)
        subparser = measurements.add_parser(name, help=description.splitlines()[0], description=description)
        module.add_arguments(subparser)
        subparser.set_defaults(measure=module.measure)
    return parser


def main() -> None:
    """Run the measurement named on the command line."""
    asked = sys.argv[1:2]
    arguments = make_parser(asked if asked and asked[0] in MEASUREMENTS else MEASUREMENTS).parse_args()
    # As Ctrl-C does, so that no process which was started for it outlives it and slows down what is measured later.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    # As for most people: without cached bytecode a process takes a third longer to start.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    try:
        arguments.measure(arguments)
    except TinygradChatError as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
