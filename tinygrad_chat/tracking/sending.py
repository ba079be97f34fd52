"""Send a run's events to its tracker as they occur, each line of the log once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tinygrad_chat.formatting import reason_of
from tinygrad_chat.reports.summary import is_number
from tinygrad_chat.tracking.opening import expect_tracker, open_tracker, read_identities, was_opened_here
from tinygrad_chat.tracking.tracker import RevisableTracker, Tracker
from tinygrad_chat.training.events import Evaluated, Event, Logged, RolledBack
from tinygrad_chat.training.run import Run

Send = Callable[[Event], None]


@contextmanager
def tracking(run: Run, say: Callable[[str], None] = lambda line: None, *, asked_for: bool = False) -> Iterator[Send]:
    """Provide a function that sends a run's events to the tracker that its configuration names, if any.

    Enter before training starts. `say` reports where to look, and a failure of the tracker, which is then dropped. The
    tracker of a resumed run may have been chosen by someone else: unless the current user has `asked_for` it, or it was
    opened here before, it is not even imported, and `say` reports that. Raises BackendError if its library is not
    installed.
    """
    name = run.config.run.track
    if name is not None and run.resumed and not asked_for and not was_opened_here(name, run):
        say(f"not logging to {name}, as this run never did so from this machine; to log to it, add --track {name}")
        name = None
    expect_tracker(name)
    sender = _Sender(run, name, say)
    failed = True
    try:
        yield sender.send
        failed = False
    finally:
        sender.close(failed=failed)


class _Sender:
    """Sends events to a tracker, which it opens on the first event: by then this process holds the folder's lock."""

    def __init__(self, run: Run, name: str | None, say: Callable[[str], None]) -> None:
        self._run, self._name, self._say = run, name, say
        self._tracker: Tracker | None = None
        # The last step that an earlier start sent: training may cut lines up to it off the log and write them again.
        self._sent = -1
        if name is not None and name in read_identities(run):
            self._sent = max((int(record["step"]) for record in run.folder.records()), default=-1)
        self._shown = self._sent  # the same for texts, which TensorBoard cannot take back

    def send(self, event: Event) -> None:
        """Send the part of an event that a tracker can show."""
        if self._name is None:
            return
        with self._left_alone_when_it_fails():
            if self._tracker is None:
                self._tracker = open_tracker(self._name, self._run)
                if isinstance(self._tracker, RevisableTracker):
                    self._sent = -1
                elif self._tracker.last_step is not None:
                    self._sent = self._shown = self._tracker.last_step
                self._say(f"tracker: {self._tracker.how_to_look}")
            self._pass_on(self._tracker, event)

    def _pass_on(self, tracker: Tracker, event: Event) -> None:
        if isinstance(event, RolledBack) and isinstance(tracker, RevisableTracker):
            tracker.take_back(event.step)
            self._sent = self._shown = event.step - 1
        elif isinstance(event, Evaluated) and event.step > self._shown:
            self._shown = event.step
            tracker.show_text(event.step, event.sample)
        elif isinstance(event, Logged) and event.record["step"] > self._sent:
            values = {name: value for name, value in (event.record | event.timing).items() if name != "step"}
            for source, evaluation in values.pop("sources", {}).items():
                values |= {f"{name}/{source}": value for name, value in evaluation.items()}
            self._sent = event.record["step"]
            tracker.log(self._sent, {name: float(value) for name, value in values.items() if is_number(value)})

    def close(self, *, failed: bool) -> None:
        """Let the tracker send what is still pending."""
        if self._tracker is not None:
            with self._left_alone_when_it_fails():
                self._tracker.close(failed=failed)

    @contextmanager
    def _left_alone_when_it_fails(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever a library raises: a tracker must not end a run
            reason = reason_of(error)
            self._say(f"--track {self._name}: {reason}; training continues without it")
            self._name = self._tracker = None
