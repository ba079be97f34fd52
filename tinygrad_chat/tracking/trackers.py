"""Trackers: where a run's log goes beside log.jsonl, so that others can look at it as it comes.

From Python, as `tgc train --track tensorboard` does it:

    run = start_run(resolve_config({"track": "tensorboard"}))
    with tracking(run) as send:
        for event in train(run):
            send(event)

log.jsonl stays the record; a tracker that fails is left alone from then on, and training goes on.
"""

from __future__ import annotations

import contextlib
import html
import importlib
import io
import json
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tinygrad_chat.config.training import to_settings
from tinygrad_chat.errors import BackendError
from tinygrad_chat.files import write_atomic
from tinygrad_chat.formatting import quoted
from tinygrad_chat.reports.summary import is_number
from tinygrad_chat.training.loop import Evaluated, Event, Logged, RolledBack
from tinygrad_chat.training.run import Run

PROJECT = "tinygrad_chat"
IDENTITIES = "tracker.json"
"""In a run's folder: by what name or number each tracker knows the run."""

Send = Callable[[Event], None]


class Tracker(ABC):
    """A library that shows runs. Opened for `run`, which goes on from its step; `identity` is what an earlier
    start of the same run has left, if there was one."""

    library: str
    """What to import, and to install."""
    takes_back = False
    """Whether points can be taken back when their steps come again."""

    @abstractmethod
    def __init__(self, run: Run, identity: str | None) -> None: ...

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the numbers of a line of the log."""

    @abstractmethod
    def show_text(self, step: int, text: str) -> None:
        """Send the text that the model wrote after `step` updates; it may be followed by the numbers of that step."""

    def take_back(self, step: int) -> None:
        """Forget what was sent for `step` and later; only where `takes_back`."""
        raise NotImplementedError(f"{self.library} cannot take points back")

    @abstractmethod
    def close(self, *, failed: bool) -> None:
        """Send what is left."""

    identity: str = ""
    """By what name or number the library knows the run."""
    place: str = ""
    """How to look at it."""
    last_step: int | None = None
    """The last step that it has from earlier starts of the run, where the library says so."""


class TensorBoard(Tracker):
    """Event files in the run's folder, which TensorBoard reads. A run that goes on hides what it does again."""

    library = "tensorboardX"
    takes_back = True

    def __init__(self, run: Run, identity: str | None) -> None:
        self._folder = run.folder.path / "tensorboard"
        self._open(run.step if identity else None)
        self.identity = self._folder.name
        viewer = "" if shutil.which("tensorboard") else " (after: pip install tensorboard)"
        self.place = f"tensorboard --logdir {quoted(self._folder)}{viewer}"
        if not identity:
            lines = [f"    {name} = {value}" for name, value in to_settings(run.config).items()]
            self._writer.add_text("settings", "\n".join(lines), 0)

    def _open(self, purge_step: int | None) -> None:
        suffix = "" if purge_step is None else f".from-{purge_step:06d}"  # files are named by the second
        writer = importlib.import_module(self.library).SummaryWriter
        self._writer = writer(str(self._folder), purge_step=purge_step, flush_secs=10, filename_suffix=suffix)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send each number as a scalar of its own."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def show_text(self, step: int, text: str) -> None:
        """Send the text as an indented block, which Markdown shows as it is."""
        self._writer.add_text("sample", "".join(f"    {line}\n" for line in text.splitlines()), step)

    def take_back(self, step: int) -> None:
        """Begin a new event file, which hides the earlier ones from `step` on."""
        self._writer.close()
        self._open(step)

    def close(self, *, failed: bool) -> None:
        """Write what is left."""
        self._writer.close()


class WeightsAndBiases(Tracker):
    """Weights & Biases: https://docs.wandb.ai. Offline where WANDB_MODE says so."""

    library = "wandb"

    def __init__(self, run: Run, identity: str | None) -> None:
        wandb = self._wandb = importlib.import_module(self.library)
        self.identity = identity or secrets.token_hex(4)
        self._run = wandb.init(
            project=PROJECT,
            name=run.folder.path.resolve().name,
            config=to_settings(run.config),
            dir=str(run.folder.path),
            id=self.identity,
            resume="allow",
            settings=wandb.Settings(console="off", silent=True),  # the screen is not its own
        )
        self.last_step = self._run.starting_step - 1
        self.place = f"wandb sync {self._run.settings.sync_dir}" if self._run.offline else self._run.url

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the numbers as one row."""
        self._run.log(dict(values), step=step)

    def show_text(self, step: int, text: str) -> None:
        """Send the text as HTML that keeps its lines."""
        page = self._wandb.Html(f"<pre>{html.escape(text)}</pre>", inject=False)
        self._run.log({"sample": page}, step=step)

    def close(self, *, failed: bool) -> None:
        """Send what is left, however long that takes."""
        self._run.finish(exit_code=int(failed))


class Trackio(Tracker):
    """Trackio: https://huggingface.co/docs/trackio. On this machine, or where TRACKIO_SPACE_ID says."""

    library = "trackio"

    def __init__(self, run: Run, identity: str | None) -> None:
        trackio = self._trackio = importlib.import_module(self.library)
        self.identity = identity or f"{run.folder.path.resolve().name}-{secrets.token_hex(4)}"  # it knows runs by name
        with contextlib.redirect_stdout(io.StringIO()):  # the screen is not its own
            self._run = trackio.init(
                project=PROJECT, name=self.identity, config=to_settings(run.config), resume="allow", embed=False
            )
        self.place = f"trackio show --project {PROJECT}"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the numbers as one row."""
        self._run.log(dict(values), step=step)

    def show_text(self, step: int, text: str) -> None:
        """Send the text as Markdown that keeps its lines."""
        block = "".join(f"    {line}\n" for line in text.splitlines())
        self._run.log({"sample": self._trackio.Markdown(block)}, step=step)

    def close(self, *, failed: bool) -> None:
        """Send what is left."""
        with contextlib.redirect_stdout(io.StringIO()):
            self._trackio.finish()  # the run's own leaves it open for a message at the end of the process


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "trackio": Trackio, "wandb": WeightsAndBiases}


def expect_tracker(name: str | None) -> None:
    """Raise BackendError, naming the extra, where the library of the tracker `name` is not installed."""
    if name is None:
        return
    library = TRACKERS[name].library
    try:
        importlib.import_module(library)
    except ImportError as error:
        raise BackendError(f"--track {name}: needs {library}, the extra {name}: pip install {library}") from error


def open_tracker(name: str, run: Run) -> Tracker:
    """Return the tracker `name`, opened for `run`: anew, or where an earlier start of this run has left it.

    Raises BackendError where its library is not installed, and whatever the library does.
    """
    expect_tracker(name)
    known = _identities(run)
    tracker = TRACKERS[name](run, known.get(name))
    write_atomic(run.folder.path / IDENTITIES, json.dumps({**known, name: tracker.identity}, indent=1).encode())
    return tracker


def _identities(run: Run) -> dict[str, str]:
    """Return what tracker.json says; nothing where that cannot be read."""
    try:
        found = json.loads((run.folder.path / IDENTITIES).read_bytes())
        return {name: value for name, value in found.items() if isinstance(value, str)}
    except (OSError, ValueError, AttributeError):
        return {}


@contextmanager
def tracking(run: Run, say: Callable[[str], None] = lambda line: None) -> Iterator[Send]:
    """Provide what sends a run's events to its tracker, the one that its configuration names, if any.

    Enter before training starts. `say` is told where to look, and once of a tracker that fails: it is left alone from
    then on. Raises BackendError where its library is not installed.
    """
    name = run.config.track
    expect_tracker(name)
    sender = _Sender(run, name, say)
    failed = True
    try:
        yield sender.send
        failed = False
    finally:
        sender.close(failed=failed)


class _Sender:
    """Sends events to a tracker that is opened with the first of them, when the run's folder is surely ours."""

    def __init__(self, run: Run, name: str | None, say: Callable[[str], None]) -> None:
        self._run, self._name, self._say = run, name, say
        self._tracker: Tracker | None = None
        # The last step that an earlier start has sent: training cuts these lines off its log and writes them anew.
        self._sent = -1
        if name is not None and name in _identities(run):
            self._sent = max((int(record["step"]) for record in run.folder.records()), default=-1)
        self._shown = self._sent  # texts: TensorBoard takes none of them back

    def send(self, event: Event) -> None:
        """Send what a tracker can show of an event."""
        if self._name is None:
            return
        with self._left_alone_when_it_fails():
            if self._tracker is None:
                self._tracker = open_tracker(self._name, self._run)
                if self._tracker.takes_back:
                    self._sent = -1
                elif self._tracker.last_step is not None:
                    self._sent = self._shown = self._tracker.last_step
                self._say(f"tracker: {self._tracker.place}")
            self._pass_on(self._tracker, event)

    def _pass_on(self, tracker: Tracker, event: Event) -> None:
        if isinstance(event, RolledBack) and tracker.takes_back:
            tracker.take_back(event.step)
            self._sent = self._shown = event.step - 1
        elif isinstance(event, Evaluated) and event.step > self._shown:
            self._shown = event.step
            tracker.show_text(event.step, event.sample)
        elif isinstance(event, Logged) and event.record["step"] > self._sent:
            values = {name: value for name, value in (event.record | event.timing).items() if name != "step"}
            self._sent = event.record["step"]
            tracker.log(self._sent, {name: float(value) for name, value in values.items() if is_number(value)})

    def close(self, *, failed: bool) -> None:
        """Let the tracker send what is left."""
        if self._tracker is not None:
            with self._left_alone_when_it_fails():
                self._tracker.close(failed=failed)

    @contextmanager
    def _left_alone_when_it_fails(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever a library raises: no tracker is worth a run
            reason = " ".join(str(error).split()) or type(error).__name__
            self._say(f"--track {self._name}: {reason}; training goes on without it")
            self._name = self._tracker = None
