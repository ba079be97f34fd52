"""How fast ranks exchange a gradient: `tgc doctor` says it, or why it could not be found out."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from tinygrad_chat.errors import TinygradChatError
from tinygrad_chat.parallel import FAREWELL, Communicator, ThreadTeam, bandwidth


def test_the_ranks_take_leave_of_each_other(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """A message that nobody has taken is an error when MPI ends, though not each time."""
    own = threading.local()

    @contextmanager
    def joined_ranks(arguments: object) -> Iterator[SimpleNamespace]:
        communicator, taken = own.communicator, []
        broadcast = communicator.broadcast_object
        communicator.broadcast_object = lambda: taken.append(broadcast())
        yield SimpleNamespace(communicator=communicator)
        if communicator.rank == 0:
            broadcast(FAREWELL)
        else:
            assert taken == [FAREWELL]

    def work(communicator: Communicator) -> None:
        own.communicator = communicator
        bandwidth.main()

    monkeypatch.setattr(bandwidth, "joined_ranks", joined_ranks)
    monkeypatch.setattr(bandwidth, "ELEMENTS", 1000)
    ThreadTeam(2).run(work)
    assert float(capsys.readouterr().out) > 0


@pytest.mark.profile("ci")
@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import time; time.sleep(60)", "2 ranks: did not finish within 1 s"),
        ("print('=' * 80, 'killed ' * 200, sep='\\n'); exit(9)", "2 ranks: ended with exit code 9: killed killed"),
    ],
    ids=["hangs", "fails"],
)
def test_why_there_is_no_figure_is_one_short_line(monkeypatch: pytest.MonkeyPatch, program: str, said: str):
    monkeypatch.setattr(bandwidth, "ranks_command", lambda ranks: [sys.executable, "-c", program])
    with pytest.raises(TinygradChatError) as raised:
        bandwidth.measured_bandwidth(within=1)
    assert str(raised.value).startswith(said)
    assert len(str(raised.value)) < 340
    assert "\n" not in str(raised.value)
