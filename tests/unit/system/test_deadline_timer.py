"""One timer for many deadlines, by clocks that the test sets."""

import asyncio
import errno
from collections.abc import Callable

import pytest

from port_knocking_doors.system import deadline_timer
from port_knocking_doors.system.clock import now
from port_knocking_doors.system.deadline_timer import DeadlineTimer

START = 1e6


class Machine:
    """Its clocks stand still but where the test lets time pass: that of the kernel's timers, and the event loop's."""

    def __init__(self) -> None:
        self.now = START
        self.has_timers = True
        self.timers: list[KernelTimer] = []
        self.handles: list[Handle] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> "Handle":
        self.handles.append(Handle(self.now + delay, callback))
        return self.handles[-1]

    def make(self, wake: Callable[[], None]) -> "KernelTimer":
        if not self.has_timers:
            raise OSError(errno.EMFILE, "Too many open files")
        self.timers.append(KernelTimer(wake))
        return self.timers[-1]

    @property
    def waiting(self) -> list[float]:
        waiting = [max(timer.due, self.now) for timer in self.timers if timer.due is not None and not timer.is_closed]
        return waiting + [handle.due for handle in self.handles if not handle.is_cancelled]

    def pass_to(self, when: float, *, is_asleep: bool = False) -> None:
        """Let time pass; while the machine is asleep the event loop's does not."""
        before, self.now = self.now, when
        for timer in self.timers:
            if timer.due is not None and timer.due <= when and not timer.is_closed:
                timer.due = None
                timer.wake()
        for handle in [*self.handles]:
            if is_asleep:
                handle.due += when - before
            elif handle.due <= when:
                self.handles.remove(handle)
                if not handle.is_cancelled:
                    handle.callback()


class KernelTimer:
    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.due: float | None = None
        self.is_closed = False

    def set(self, when: float) -> None:
        self.due = when

    def unset(self) -> None:
        self.due = None

    def close(self) -> None:
        assert not self.is_closed
        self.is_closed = True


class Handle:
    def __init__(self, due: float, callback: Callable[[], None]) -> None:
        self.due = due
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


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


@pytest.fixture(params=[True, False], ids=["timer of the kernel", "no descriptor left"])
def machine(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Machine:
    machine = Machine()
    machine.has_timers = request.param
    monkeypatch.setattr(deadline_timer, "LOOK_EVERY", 60.0)
    monkeypatch.setattr(deadline_timer, "now", lambda: machine.now)
    monkeypatch.setattr(deadline_timer, "BootTimer", machine.make)
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: machine)
    return machine


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
def test_timer_waits_for_the_nearest_deadline(
    machine: Machine, deadlines: list[list[float]], waiting: list[float]
) -> None:
    timer = timer_of(*(Source(*each) for each in deadlines))
    timer.update()
    assert machine.waiting == waiting


def test_timer_wakes_every_source_and_waits_for_the_next_deadline(machine: Machine) -> None:
    one, two = Source(START + 2, START + 7), Source(START + 5)
    timer_of(one, two).update()
    for when in (START + 2, START + 5, START + 7):
        assert machine.waiting == [when]
        machine.pass_to(when)
    assert one.woken == two.woken == [START + 2, START + 5, START + 7]
    assert machine.waiting == []


def test_new_deadline_takes_the_place_of_the_one_that_was_waited_for(machine: Machine) -> None:
    source = Source(START + 8)
    timer = timer_of(source)
    timer.update()
    source.deadlines.append(START + 1)
    timer.update()
    assert machine.waiting == [START + 1]
    source.deadlines = [START + 20]
    timer.update()
    assert machine.waiting == [START + 20]
    source.deadlines = []
    timer.update()
    assert machine.waiting == []


def test_cancelled_timer_wakes_nothing_until_the_next_update(machine: Machine) -> None:
    source = Source(START + 1)
    timer = timer_of(source)
    timer.cancel()
    timer.update()
    timer.cancel()
    timer.cancel()
    machine.pass_to(START + 10)
    assert source.woken == []
    timer.update()
    assert machine.waiting == [START + 10]


def test_deadline_that_a_suspend_passed_is_due_when_the_machine_resumes(machine: Machine) -> None:
    source, resumed = Source(START + 300), START + 8 * 3600
    timer_of(source).update()
    machine.pass_to(resumed, is_asleep=True)
    for second in range(60):
        machine.pass_to(resumed + second + 1)
    (woken,) = source.woken
    assert woken - resumed == (0 if machine.has_timers else 60)


def test_unchanged_deadline_sets_no_timer_again(machine: Machine) -> None:
    source = Source(START + 3)
    timer = timer_of(source)
    for _ in range(3):
        timer.update()
    assert (len(machine.timers), len(machine.handles)) in ((1, 0), (0, 1))


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
        try:
            await asyncio.wait_for(woken.wait(), 5)
        finally:
            timer.cancel()

    asyncio.run(story())


class AsleepLoop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still, as CLOCK_MONOTONIC does while the machine is asleep."""

    def time(self) -> float:
        return START


def test_timer_wakes_though_the_time_of_the_loop_stands_still() -> None:
    loop = AsleepLoop()
    woken: list[float] = []

    async def story() -> None:
        deadline = now() + 0.02
        timer = DeadlineTimer()
        timer.add(lambda: None if woken else deadline, woken.append)
        timer.update()
        while not woken:
            await asyncio.sleep(0)
        timer.cancel()
        assert woken[0] >= deadline

    try:
        loop.run_until_complete(story())
    finally:
        loop.close()
