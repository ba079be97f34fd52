"""The text of --help: plain, complete in a pipe, in lines as wide as the terminal allows."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

WIDEST_OPTION = 34  # characters: the help of a wider option begins on the next line
LONGEST_SENTENCE = 200  # characters


class Command(TyperCommand):
    """A command whose help lists its options under headings."""

    def get_short_help_str(self, limit: int = LONGEST_SENTENCE) -> str:
        """Return the text beside the command in a list: the whole first sentence of its help."""
        return super().get_short_help_str(max(limit, LONGEST_SENTENCE))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and options."""
        write_options(self, ctx, formatter)


class Group(TyperGroup):
    """Several commands under one name; the help lists them above the options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, then the options that may precede them."""
        self.format_commands(ctx, formatter)
        write_options(self, ctx, formatter)


class GroupOfRuns(Group):
    """A group with a `--checkpoint` option: a first word that is not one of its commands names a run."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse `NAME ...` as `--checkpoint NAME ...`."""
        named = bool(args) and not args[0].startswith("-") and args[0] not in self.commands
        return super().parse_args(ctx, ["--checkpoint", *args] if named else args)


def write_options(command: Any, ctx: Any, formatter: Any) -> None:
    """Write a command's visible arguments and options, one section per heading."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None:
            heading = parameter.rich_help_panel or f"{parameter.param_type_name.title()}s"
            sections.setdefault(heading, []).append(record)
    widths = [len(spelling) for records in sections.values() for spelling, _ in records]
    column = max((width for width in widths if width <= WIDEST_OPTION), default=0)
    for heading, records in sections.items():
        with formatter.section(heading):
            formatter.write_dl([(spelling.ljust(column), text) for spelling, text in records], col_max=column)
