"""One timer for many deadlines, on a loop whose clock the test sets."""

import asyncio
from collections.abc import Callable

import pytest

from port_knocking_doors.system import deadline_timer
from port_knocking_doors.system.clock import now
from port_knocking_doors.system.deadline_timer import DeadlineTimer

START = 1e6


class Handle:
    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Loop:
    """Takes what is to be called later, and calls it once its time has come."""

    def __init__(self) -> None:
        self.now = START
        self.timers: list[tuple[float, Callable[[], None], Handle]] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> Handle:
        self.timers.append((self.now + delay, callback, Handle()))
        return self.timers[-1][2]

    @property
    def waiting(self) -> list[float]:
        return [when for when, _, handle in self.timers if not handle.is_cancelled]

    def pass_to(self, when: float) -> None:
        self.now = when
        due = [one for one in self.timers if one[0] <= when]
        self.timers = [one for one in self.timers if one[0] > when]
        for _, callback, handle in due:
            if not handle.is_cancelled:
                callback()


class Source:
    """Deadlines, and when they were reported as due."""

    def __init__(self, *deadlines: float) -> None:
        self.deadlines = list(deadlines)
        self.woken: list[float] = []

    def next_deadline(self) -> float | None:
        return min(self.deadlines, default=None)

    def on_due(self, when: float) -> None:
        self.woken.append(when)
        self.deadlines = [deadline for deadline in self.deadlines if deadline > when]


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    standing = Loop()
    monkeypatch.setattr(deadline_timer, "now", lambda: standing.now)
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: standing)
    return standing


def timer_of(*sources: Source) -> DeadlineTimer:
    timer = DeadlineTimer()
    for source in sources:
        timer.add(source.next_deadline, source.on_due)
    return timer


@pytest.mark.parametrize(
    ("deadlines", "waiting"),
    [
        pytest.param([[], []], [], id="none"),
        pytest.param([[START + 5], []], [START + 5], id="of one source"),
        pytest.param([[START + 5, START + 9], [START + 3]], [START + 3], id="the nearest of both"),
        pytest.param([[START - 5], [START + 3]], [START], id="one that has passed"),
    ],
)
def test_timer_waits_for_the_nearest_deadline(loop: Loop, deadlines: list[list[float]], waiting: list[float]) -> None:
    timer = timer_of(*(Source(*each) for each in deadlines))
    timer.update()
    assert loop.waiting == waiting


def test_timer_wakes_every_source_and_waits_for_the_next_deadline(loop: Loop) -> None:
    one, two = Source(START + 2, START + 7), Source(START + 5)
    timer_of(one, two).update()
    for when in (START + 2, START + 5, START + 7):
        assert loop.waiting == [when]
        loop.pass_to(when)
    assert one.woken == two.woken == [START + 2, START + 5, START + 7]
    assert loop.waiting == []


def test_new_deadline_takes_the_place_of_the_one_that_was_waited_for(loop: Loop) -> None:
    source = Source(START + 8)
    timer = timer_of(source)
    timer.update()
    source.deadlines.append(START + 1)
    timer.update()
    assert loop.waiting == [START + 1]
    source.deadlines = [START + 20]
    timer.update()
    assert loop.waiting == [START + 20]
    source.deadlines = []
    timer.update()
    assert loop.waiting == []


def test_cancelled_timer_wakes_nothing_until_the_next_update(loop: Loop) -> None:
    source = Source(START + 1)
    timer = timer_of(source)
    timer.cancel()
    timer.update()
    timer.cancel()
    timer.cancel()
    loop.pass_to(START + 10)
    assert source.woken == []
    timer.update()
    assert loop.waiting == [START + 10]


def test_timer_wakes_on_a_real_loop() -> None:
    async def story() -> None:
        woken = asyncio.Event()
        timer = DeadlineTimer()
        deadline: list[float] = [now() + 0.02]

        def on_due(when: float) -> None:
            if when >= deadline[0]:
                deadline.clear()
                woken.set()

        timer.add(lambda: deadline[0] if deadline else None, on_due)
        timer.update()
        await asyncio.wait_for(woken.wait(), 5)

    asyncio.run(story())
