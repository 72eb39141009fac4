"""Steps of the wall clock, by clocks that the test sets."""

import time

import pytest

from port_knocking_doors.system.wall_clock import PRECISION, WallClockWatch

SECOND = 1_000_000_000


class Clocks:
    """Stands in for the module `time`; `pauses`: how long the process is interrupted at its next readings."""

    CLOCK_BOOTTIME = time.CLOCK_BOOTTIME

    def __init__(self) -> None:
        self.boot = 5_000 * SECOND
        self.wall = 1_800_000_000 * SECOND
        self.pauses: list[int] = []

    def passes(self, nanoseconds: int) -> None:
        self.boot += nanoseconds
        self.wall += nanoseconds

    def time_ns(self) -> int:
        self.passes(self.pauses.pop(0) if self.pauses else 50)
        return self.wall

    def clock_gettime_ns(self, clock: int) -> int:
        assert clock == time.CLOCK_BOOTTIME
        self.passes(50)
        return self.boot


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr("port_knocking_doors.system.wall_clock.time", clocks)
    return clocks


@pytest.mark.parametrize("step", [-3600 * SECOND, -2 * PRECISION, 2 * PRECISION, 3600 * SECOND])
def test_step_is_reported_once(clocks: Clocks, step: int) -> None:
    watch = WallClockWatch()
    clocks.passes(SECOND)
    assert watch.step() == 0
    clocks.wall += step
    clocks.passes(SECOND)
    assert abs(watch.step() - step) < 1000
    assert watch.step() == 0


def test_passing_time_and_suspend_are_no_steps(clocks: Clocks) -> None:
    watch = WallClockWatch()
    clocks.passes(8 * 3600 * SECOND)  # both count the time of a suspend
    assert watch.step() == 0


def test_interrupted_reading_is_no_step(clocks: Clocks) -> None:
    watch = WallClockWatch()
    clocks.pauses = [400_000_000, 5_000_000]
    assert watch.step() == 0
    assert clocks.pauses == []


def test_steps_below_the_precision_add_up(clocks: Clocks) -> None:
    watch = WallClockWatch()
    steps = []
    for _ in range(10):
        clocks.wall -= PRECISION // 4
        steps.append(watch.step())
    assert abs(sum(steps) + 2 * PRECISION) < 10_000


def test_real_clocks_have_no_step() -> None:
    watch = WallClockWatch()
    assert [watch.step() for _ in range(100)] == [0] * 100
