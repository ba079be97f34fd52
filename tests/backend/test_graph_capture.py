"""How a device is sent numbers and captures graphs: in which order, and what happens on an error. Here the device is a
list of what it was asked for."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tinygrad_chat.backend import Inbox, Packet
from tinygrad_chat.backend.cupy_graph_capture import CupyGraphCapture
from tinygrad_chat.backend.numpy_backend import NumpyBackend


class Behind(NumpyBackend):
    """A device that makes each copy only when somebody waits for it, or for a later one."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.done = 0

    def send(self, buffer: np.ndarray, array: np.ndarray) -> None:
        self.waiting.append(lambda: np.copyto(array, buffer))

    def mark(self) -> int:
        return len(self.waiting)

    def wait_for(self, mark: int) -> None:
        while self.done < mark:
            self.waiting[self.done]()
            self.done += 1


def test_an_inbox_overwrites_no_buffer_that_is_still_to_be_read():
    backend = Behind()
    inbox = Inbox(backend, (2,), np.int64)
    address, seen = inbox.array.ctypes.data, []
    for number in range(5):
        inbox.write((number, -number))
        backend.waiting.append(lambda: seen.append(inbox.array.tolist()))
        assert backend.done >= 2 * number - 3  # the host is two copies ahead at most
    backend.wait_for(len(backend.waiting))
    assert seen == [[number, -number] for number in range(5)]
    assert inbox.array.ctypes.data == address


def test_the_host_has_an_inbox_too_but_captures_nothing():
    backend = NumpyBackend()
    inbox = Inbox(backend, (1, 2), np.float32)
    for numbers in ([[1, 2]], [[3, 4]], [[5, 6]]):
        inbox.write(numbers)
        assert inbox.array.tolist() == numbers
    assert backend.graph_capture() is None


def test_a_packet_overwrites_all_of_its_arrays_by_one_copy_each_with_what_was_written_last():
    backend = Behind()
    packet = Packet(backend, ((3,), np.int32), ((), np.float64), ((0,), np.int64), ((2, 1), np.float32))
    numbers, number, nothing, last = packet.slots
    assert all(slot.array.ctypes.data % 16 == packet.slots[0].array.ctypes.data % 16 for slot in packet.slots)
    numbers.write((1, 2, 3))
    number.write(0.1)
    last.write([[4], [5]])
    assert not backend.waiting
    packet.send()
    number.write(0.2)
    packet.send()
    assert len(backend.waiting) == 2
    for wanted in (0.1, 0.2):
        backend.wait_for(backend.done + 1)
        assert number.array == wanted
        assert (numbers.array.tolist(), nothing.array.tolist(), last.array.tolist()) == ([1, 2, 3], [], [[4], [5]])


class Stream:
    """As cupy.cuda.Stream: it notes what it is asked for."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.name, self.calls = name, calls

    def record(self) -> str:
        return f"{self.name}'s event"

    def wait_event(self, event: str) -> None:
        self.calls.append(f"{self.name} waits for {event}")

    def begin_capture(self) -> None:
        self.calls.append("begin")

    def end_capture(self) -> Any:
        self.calls.append("end")
        if "invalid" in self.calls:
            raise RuntimeError("cudaErrorStreamCaptureInvalidated")
        return SimpleNamespace(launch=lambda stream: self.calls.append(f"launch on {stream.name}"))

    def __enter__(self) -> None:
        self.calls.append(f"{self.name} is current")

    def __exit__(self, *_: Any) -> None:
        self.calls.append(f"{self.name} is current no longer")


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def capture(calls: list[str]) -> CupyGraphCapture:
    @contextmanager
    def using_allocator(malloc: str) -> Iterator[None]:
        calls.append(f"allocate by {malloc}")
        yield
        calls.append("allocate as before")

    def new_stream(*, non_blocking: bool) -> Stream:
        assert non_blocking
        return Stream("its own", calls)

    cuda = SimpleNamespace(
        MemoryPool=lambda: SimpleNamespace(malloc="its pool", total_bytes=lambda: 7),
        Stream=new_stream,
        get_current_stream=lambda: Stream("the other", calls),
        using_allocator=using_allocator,
    )
    pool = SimpleNamespace(free_all_blocks=lambda: calls.append("free"))
    return CupyGraphCapture(SimpleNamespace(cuda=cuda, get_default_memory_pool=lambda: pool))


ENTERED = ["its own waits for the other's event", "allocate by its pool", "its own is current"]
LEFT = ["its own is current no longer", "allocate as before", "the other waits for its own's event"]


def test_work_is_captured_and_launched_on_its_own_stream(capture: CupyGraphCapture, calls: list[str]):
    with capture.on_its_stream():
        replay = capture.capture(lambda: calls.append("work"))
    with capture.on_its_stream():
        replay()
    within = ["free", "begin", "work", "end"]
    assert calls == [*ENTERED, *within, *LEFT, *ENTERED, "launch on its own", *LEFT]
    assert capture.memory_held() == 7


def test_nothing_is_collected_while_work_is_captured_and_memory_is_given_back_before_the_first_alone(
    capture: CupyGraphCapture, calls: list[str]
):
    collected = []
    with capture.on_its_stream():
        for _ in range(2):
            capture.capture(lambda: collected.append(gc.isenabled()))
    assert (collected, gc.isenabled()) == ([False, False], True)
    assert calls.count("free") == 1


@pytest.mark.parametrize("invalid", [False, True])
def test_an_error_ends_the_capture_and_is_the_one_that_is_told(
    capture: CupyGraphCapture, calls: list[str], invalid: bool
):
    def work() -> None:
        calls.extend(["invalid"] * invalid)
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"), capture.on_its_stream():
        capture.capture(work)
    assert "end" in calls
    assert calls[-1] == LEFT[-1]
