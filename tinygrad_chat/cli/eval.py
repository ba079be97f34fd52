"""`tgc eval`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygrad_chat.cli.flags import flags_of
from tinygrad_chat.cli.ranks import RankLogs, RanksOption, RankTimeout, expect_all_ranks, several_ranks
from tinygrad_chat.cli.streams import print_json, say
from tinygrad_chat.config.groups import DataOptions
from tinygrad_chat.errors import DataError, FormatError, RankError, StorageError, TinygradChatError, UsageError
from tinygrad_chat.inference.options import InferenceOptions
from tinygrad_chat.option import specs_of

if TYPE_CHECKING:
    from tinygrad_chat.cli.eval_tables import Evaluated
    from tinygrad_chat.evaluation.distributed import SharedEvaluation
    from tinygrad_chat.inference.engine import Engine
    from tinygrad_chat.runs.state import SavedModel
    from tinygrad_chat.tasks import Task
    from tinygrad_chat.text.download import Progress

OWN_TEXT = "what each run holds out of its own text"
OWN_TASKS = "all, of a run that was taught to chat"
READING = ("data", "text_field", "encoding")


@flags_of(
    InferenceOptions,
    DataOptions,
    short=False,
    only=(*specs_of(InferenceOptions), *READING),
    defaults={"mode": "its own", "data": OWN_TEXT},
)
def eval_(
    call: typer.Context,
    runs: Annotated[
        list[str] | None,
        typer.Argument(help="runs or checkpoints (default: the newest run)", metavar="[RUN ...]", show_default=False),
    ] = None,
    max_bytes: Annotated[int | None, typer.Option(help="read at most so much of each text", min=1)] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            help=f"ask this task alone, by its name or as FILE.py of your own; several times for several "
            f"(default {OWN_TASKS})",
            metavar="TASK",
        ),
    ] = None,
    problems: Annotated[int, typer.Option(help="how many of each task (default 100)", min=1, show_default=False)] = 100,
    seed: Annotated[int, typer.Option(help="decides which problems (default 1)", min=0, show_default=False)] = 1,
    examples: Annotated[int, typer.Option(help="show so many answers to each task", min=0, show_default=False)] = 0,
    run_programs: Annotated[bool, typer.Option("--run-programs", help="run programs that a model writes")] = False,
    tools: Annotated[bool, typer.Option("--tools/--no-tools", help="a calculator for the model (default on)")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="a JSON object, alone on stdout")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="tables in Markdown")] = False,
    ranks: RanksOption = None,
    rank_timeout: RankTimeout = 300,
    rank_logs: RankLogs = None,
    **settings: Any,
) -> None:
    """Measure how good trained models are: on a text, in bits per byte, and of those that chat, how many problems of
    each task they solve.

    Without --data each is measured on all of the text that its own run holds out, of which training may evaluate a part
    (--eval-tokens). To compare several, name one text for all. The scores of tasks are kept in the run's folder.
    """
    compute = {name: settings.pop(name) for name in specs_of(InferenceOptions) if name in settings}
    InferenceOptions(**compute)  # raises for invalid values
    if not settings.keys() >= {"data"} and settings:
        raise UsageError(f"--{next(iter(settings)).replace('_', '-')}: has no effect without --data")
    if task and (settings or max_bytes):
        raise UsageError(f"--{'data' if settings else 'max-bytes'}: has no effect with --task")
    if as_json and (markdown or examples):
        raise UsageError(
            f"--{'markdown' if markdown else 'examples'}: has no effect with --json, which includes everything"
        )

    from tinygrad_chat.cli.display import open_amount
    from tinygrad_chat.cli.eval_tables import Evaluated, as_objects, print_tables
    from tinygrad_chat.evaluation.distributed import SharedEvaluation
    from tinygrad_chat.parallel import use_threads
    from tinygrad_chat.tasks import open_task
    from tinygrad_chat.text.corpora import settle_source

    asking = {"count": problems, "seed": seed, "run_programs": run_programs, "examples": max(examples, 3)}
    found: list[Evaluated] = []
    failed: list[TinygradChatError] = []
    with several_ranks(call, ranks, rank_timeout, rank_logs, SharedEvaluation.take_part) as leading:
        shared = leading and SharedEvaluation(leading.communicator)
        named = [open_task(name) for name in task or []]
        if "data" in settings:
            settings["data"] = settle_source(settings["data"])  # standard input can be read only once, for all runs
        threads = compute.pop("threads", None)
        shared.ask("use_threads", threads) if shared else use_threads(threads)
        with open_amount() as show:

            def progress(activity: str, done: int, total: int) -> None:
                expect_all_ranks(leading)
                show(activity, done, total)

            for name in runs or [None]:
                found.append(Evaluated(name or ""))
                with _told(found[-1], failed, several=len(runs or []) > 1):
                    evaluator = _Evaluator(found[-1], name, compute, progress, shared)
                    if not named:
                        evaluator.measure_texts(max_bytes, settings)
                    evaluator.ask(named, tools=tools, **asking)
        for note in dict.fromkeys(note for each in found for text in each.texts for note in text.notes):
            say(note)
        if as_json:
            print_json(as_objects(found))
        else:
            print_tables(found, examples=examples, markdown=markdown)
        if failed:
            raise failed[0]


@contextmanager
def _told(found: Evaluated, failed: list[TinygradChatError], *, several: bool) -> Iterator[None]:
    """With `several` runs, hold an error of one back until the results of the others have been shown."""
    try:
        yield
    except TinygradChatError as error:
        if not several or isinstance(error, RankError):
            raise
        found.error = str(error)
        if failed:
            say(str(error))
        failed.append(error)


class _Evaluator:
    """Evaluates a run and records each result as soon as it is known."""

    def __init__(
        self,
        found: Evaluated,
        name: str | None,
        compute: Mapping[str, Any],
        progress: Progress,
        shared: SharedEvaluation | None,
    ) -> None:
        from tinygrad_chat.files import user_path
        from tinygrad_chat.inference.load import load_model
        from tinygrad_chat.interchange.opening import open_model

        self.saved: SavedModel = open_model(user_path(name) if name else None, say=say)
        self.model = load_model(self.saved, **compute)
        self.found, self.progress, self.shared = found, progress, shared
        if shared:
            shared.share(self.saved, self.model, **compute)
        found.run = name or str(self.saved.path)

    def measure_texts(self, most_bytes: int | None, settings: dict[str, Any]) -> None:
        """Evaluate it on its own held-out text, or on the text that the settings name."""
        from tinygrad_chat.evaluation.text import evaluate_on_text
        from tinygrad_chat.parallel.member import DistributedPredictor
        from tinygrad_chat.runs.consent import expect_named

        if "data" not in settings and self.saved.of_another_program:
            raise UsageError(f"{self.found.run}: has no text of its own; name one with --data")
        if "data" not in settings and self.saved.folder is not None:
            expect_named(self.saved.folder, self.saved.config.data.source)
        tokenizer, config = self.saved.tokenizer, self.saved.config
        ranks = self.shared.communicator.size if self.shared else 1
        model = DistributedPredictor(self.shared) if self.shared else self.model
        evaluated = evaluate_on_text(
            model, tokenizer, config, most_bytes=most_bytes, progress=self.progress, ranks=ranks, **settings
        )
        try:
            self.found.texts += evaluated
        except DataError as error:
            remedy = "" if "data" in settings else "; or name another text with --data"
            raise type(error)(f"{self.found.run}: {error}{remedy}") from error

    def ask(self, named: list[Task], *, tools: bool, run_programs: bool, **asking: Any) -> None:
        """Evaluate it on the named tasks; without any, on the default tasks if it was taught to chat."""
        from tinygrad_chat.evaluation.answers import ROWS, answers_of, evaluate_task
        from tinygrad_chat.inference.engine import Engine
        from tinygrad_chat.runs.figures import calculator_of
        from tinygrad_chat.runs.folder import RunFolder
        from tinygrad_chat.runs.scores import add_results
        from tinygrad_chat.tasks import default_tasks

        tasks = named or (default_tasks() if self.saved.taught_to_chat else [])
        tool = calculator_of(self.saved) if tools else None
        engine = Engine(self.model, self.saved.tokenizer, rows=ROWS, tool=tool)
        if tasks:
            self._expect_chats(engine)
        asking |= {"answering": self.shared.answers_of if self.shared else answers_of, "progress": self.progress}
        for each in tasks:
            result = evaluate_task(engine, each, run_programs=run_programs, **asking)
            self.found.tasks.append(result)
            try:
                if self.saved.folder is not None:
                    add_results(RunFolder(self.saved.folder).scores, self.saved.step, [result])
            except (FormatError, StorageError) as error:
                say(f"{error}; the scores are shown but not saved")

    def _expect_chats(self, engine: Engine) -> None:
        try:
            _ = engine.template
        except UsageError as error:
            raise UsageError(f"{self.found.run}: {error}") from error
