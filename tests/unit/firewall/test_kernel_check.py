"""firewalld's account against the kernel's: what is logged, when firewalld is reloaded, and what is left after it."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from port_knocking_doors.errors import FirewallError
from port_knocking_doors.firewall import kernel_check
from port_knocking_doors.firewall.firewalld import FirewalldFacts
from port_knocking_doors.firewall.kernel_rules import Accept, KernelRules
from port_knocking_doors.firewall.rule_opener import RuleOpener
from port_knocking_doors.model import Door, FirewalldState, Port, PortOpening, Settings
from port_knocking_doors.system import unconfirmed
from tests.helpers.fake_bus import NAME, FakeBus, shorten_calls

SOON = 3.0
DOOR = Door(ip_address("10.0.0.2"), "eth0", "main", PortOpening((Port(22),)))
RULE = 'rule priority="31313" family="ipv4" source address="10.0.0.2" port port="22" protocol="tcp" accept'
ACCEPT = Accept("public", ip_address("10.0.0.2"), Port(22))
WELL, OPEN, DOUBLED = KernelRules((b"a",)), KernelRules((b"a",), (ACCEPT,)), KernelRules((b"a", b"a"), (ACCEPT,))
FLUSHED = KernelRules()


class Kernel:
    """What the kernel says; None: nothing, to this process."""

    def __init__(self) -> None:
        self.rules: KernelRules | None = WELL

    async def read(self) -> KernelRules | None:
        await asyncio.sleep(0)
        return self.rules

    def base(self) -> KernelRules | None:
        return None if self.rules is None else KernelRules(self.rules.base)


class Recorder:
    """A listener that keeps its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_open(self, door: Door, zones: tuple[str, ...]) -> None:
        assert (door, zones) == (DOOR, ("public",))
        self.calls.append("open")

    def on_closed(self, door: Door) -> None:
        assert door == DOOR
        self.calls.append("closed")

    def on_denied(self, door: Door, reason: str) -> None:
        raise AssertionError(f"{door} is denied: {reason}")

    def on_failed(self, door: Door) -> None:
        raise AssertionError(door)


Story = Callable[[RuleOpener, Recorder], Awaitable[None]]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    found = Kernel()
    monkeypatch.setattr(kernel_check, "read_kernel_rules_in_parts", found.read)
    monkeypatch.setattr(kernel_check, "read_base_rules", found.base)
    monkeypatch.setattr(kernel_check, "FLUSHING", 0.2)
    monkeypatch.setattr(kernel_check, "_PAUSE", 0.02)
    return found


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBus:
    fake = FakeBus(tmp_path)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    fake.properties |= {"version": "1.3.3", "FirewallBackend": "nftables", "CleanupOnExit": "no"}
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", fake.address)
    shorten_calls(monkeypatch)
    return fake


def play(bus: FakeBus, story: Story) -> None:
    async def main() -> None:
        async with bus:
            opener = RuleOpener(Settings(open_knock_ports=False), uses_firewalld=True)
            recorder = Recorder()
            opener.listener = recorder
            worker = asyncio.create_task(opener.run())
            try:
                await asyncio.wait_for(story(opener, recorder), 2 * SOON)
                assert not worker.done()
            finally:
                worker.cancel()
                await asyncio.gather(worker, return_exceptions=True)

    asyncio.run(main())


async def until(condition: Callable[[], object]) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), SOON)


async def restarted(bus: FakeBus, opener: RuleOpener) -> None:
    bus.own(False)
    await until(lambda: not opener.reconciler.present)
    bus.zones["public"].clear()
    bus.own(True)
    await until(lambda: opener.reconciler.present)


def reloads(bus: FakeBus) -> int:
    return len(bus.called("reload"))


def clean(bus: FakeBus, kernel: Kernel) -> Callable[[], None]:
    """The effect of a reload."""

    def reload() -> None:
        kernel.rules = None if kernel.rules is None else WELL
        bus.zones["public"].clear()
        bus.signal(NAME, "Reloaded")

    return reload


def test_door_left_in_the_kernel_is_closed_only_after_a_reload(
    bus: FakeBus, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    bus.on_reload = clean(bus, kernel)

    async def story(opener: RuleOpener, recorder: Recorder) -> None:
        opener.open(DOOR)
        await opener.settled()
        bus.own(False)
        await until(lambda: not opener.reconciler.present)
        opener.close(DOOR)
        kernel.rules = DOUBLED
        bus.zones["public"].clear()
        bus.own(True)
        await until(lambda: recorder.calls == ["open", "closed"])
        assert kernel.rules == WELL
        await opener.settled()

    play(bus, story)
    assert reloads(bus) == 1
    assert "left 1 rule of its last run active in the kernel: reloading firewalld" in caplog.text


def test_door_is_never_closed_while_the_reload_is_refused(
    bus: FakeBus, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    bus.errors["reload"] = (f"{NAME}.NotAuthorizedException", "org.fedoraproject.FirewallD1.config")

    async def story(opener: RuleOpener, recorder: Recorder) -> None:
        opener.open(DOOR)
        await opener.settled()
        opener.close(DOOR)
        await opener.settled()
        recorder.calls.clear()
        opener.open(DOOR)
        await opener.settled()
        kernel.rules = DOUBLED
        await restarted(bus, opener)
        await opener.settled()
        opener.close(DOOR)
        await opener.settled()
        for _ in range(3):
            opener.reconciler.check()
            await opener.settled()
        assert recorder.calls == ["open"]
        with pytest.raises(FirewallError, match="refused to remove 1 rules"):
            await opener.close_all()
        clean(bus, kernel)()
        await until(lambda: recorder.calls == ["open", "closed"])

    play(bus, story)
    assert reloads(bus) == 1
    assert len(re.findall("run `firewall-cmd --reload`", caplog.text)) == 1


def test_reload_during_which_firewalld_ends_is_made_by_the_next_one(bus: FakeBus, kernel: Kernel) -> None:
    bus.silent.add("reload")

    async def story(opener: RuleOpener, recorder: Recorder) -> None:
        opener.open(DOOR)
        await opener.settled()
        await leaving(bus, kernel, opener)
        await until(lambda: reloads(bus) == 1)
        bus.silent.clear()
        bus.on_reload = clean(bus, kernel)
        assert recorder.calls == ["open"]
        await restarted(bus, opener)
        await until(lambda: recorder.calls == ["open", "closed"])

    play(bus, story)
    assert reloads(bus) == 2


def test_reload_by_another_daemon_while_it_is_waited_for_is_enough(
    bus: FakeBus, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(opener: RuleOpener, recorder: Recorder) -> None:
        @asynccontextmanager
        async def turn(_: float) -> AsyncIterator[None]:
            clean(bus, kernel)()
            await until(lambda: opener.reconciler.kernel.is_due)
            turns.append(True)
            yield

        turns: list[bool] = []
        monkeypatch.setattr(kernel_check, "turn_to_reload", turn)
        opener.open(DOOR)
        await opener.settled()
        await leaving(bus, kernel, opener)
        await until(lambda: recorder.calls == ["open", "closed"])
        assert turns == [True]

    play(bus, story)
    assert reloads(bus) == 0


def test_note_of_doors_stays_while_the_reload_is_refused(bus: FakeBus, kernel: Kernel) -> None:
    kernel.rules = None
    bus.errors["reload"] = (f"{NAME}.NotAuthorizedException", "org.fedoraproject.FirewallD1.config")

    async def story(opener: RuleOpener, _: Recorder) -> None:
        opener.open(DOOR)
        await opener.settled()
        await restarted(bus, opener)
        await opener.settled()
        assert reloads(bus) == 1
        assert unconfirmed.read(Settings().rule_priority) is not None

    play(bus, story)


async def leaving(bus: FakeBus, kernel: Kernel, opener: RuleOpener) -> None:
    """Have the door closed while firewalld restarts and leaves its rule in the kernel."""
    bus.own(False)
    await until(lambda: not opener.reconciler.present)
    opener.close(DOOR)
    kernel.rules = DOUBLED
    bus.zones["public"].clear()
    bus.calls.clear()
    bus.own(True)
    await until(lambda: opener.reconciler.present)


PRECAUTIONS = {
    # version, whether a door was open, reloads
    "old release, door": ("1.3.3", True, 1),
    "old release, no door": ("1.3.3", False, 0),
    "new release, door": ("2.1.1", True, 0),
}


@pytest.mark.parametrize(("version", "is_open", "expected"), PRECAUTIONS.values(), ids=PRECAUTIONS)
def test_process_that_may_not_see_the_kernel_reloads_as_a_precaution(
    bus: FakeBus, kernel: Kernel, version: str, is_open: bool, expected: int
) -> None:
    kernel.rules = None
    bus.properties["version"] = version
    bus.on_reload = clean(bus, kernel)

    async def story(opener: RuleOpener, _: Recorder) -> None:
        if is_open:
            opener.open(DOOR)
        await opener.settled()
        await restarted(bus, opener)
        await opener.settled()
        assert bus.zones["public"] == ([RULE] if is_open else [])

    play(bus, story)
    assert reloads(bus) == expected


@pytest.mark.parametrize(("version", "expected"), [("1.3.3", 1), ("2.1.1", 0)])
def test_successor_that_cannot_see_the_kernel_reloads_for_a_note(
    bus: FakeBus, kernel: Kernel, version: str, expected: int
) -> None:
    kernel.rules = None
    bus.properties["version"] = version
    bus.on_reload = clean(bus, kernel)

    async def first(opener: RuleOpener, _: Recorder) -> None:
        opener.open(DOOR)
        await opener.settled()
        bus.own(False)
        await until(lambda: not opener.reconciler.present)
        with pytest.raises(FirewallError, match="left 1 rule of doors"):
            await opener.close_all()

    async def settles(opener: RuleOpener, _: Recorder) -> None:
        await opener.settled()
        assert unconfirmed.read(31313) is None

    play(bus, first)
    assert unconfirmed.read(31313) == 1
    bus.owned = True
    bus.zones["public"].clear()
    play(bus, settles)
    play(bus, settles)
    assert reloads(bus) == expected


ENDS: dict[str, tuple[KernelRules | None, str, str]] = {
    # the kernel, CleanupOnExit, the error (empty: none)
    "rules are left": (OPEN, "no", "left 1 rule of doors active in the kernel"),
    "rules are left by a kill": (OPEN, "yes", "left 1 rule of doors active in the kernel"),
    "rules are gone": (FLUSHED, "no", ""),
    "unknown, and they stay": (None, "no", "left 1 rule of doors active in the kernel"),
    "unknown, and they go": (None, "yes", ""),
}


@pytest.mark.parametrize(("rules", "cleanup", "error"), ENDS.values(), ids=ENDS)
def test_end_without_firewalld_fails_where_doors_are_left(
    bus: FakeBus, kernel: Kernel, caplog: pytest.LogCaptureFixture, rules: KernelRules | None, cleanup: str, error: str
) -> None:
    bus.properties["CleanupOnExit"] = cleanup

    async def story(opener: RuleOpener, recorder: Recorder) -> None:
        opener.open(DOOR)
        await opener.settled()
        kernel.rules = rules
        bus.own(False)
        await until(lambda: not opener.reconciler.present)
        if error:
            with pytest.raises(FirewallError, match=error):
                await opener.close_all()
        else:
            await opener.close_all()
        assert recorder.calls == ["open"]

    play(bus, story)
    assert ("cannot be verified without CAP_NET_ADMIN" in caplog.text) is (rules is None and cleanup == "yes")


def test_firewalld_that_is_slow_to_flush_leaves_nothing(bus: FakeBus, kernel: Kernel) -> None:
    async def story(opener: RuleOpener, _: Recorder) -> None:
        opener.open(DOOR)
        await opener.settled()
        kernel.rules = OPEN
        bus.own(False)
        await until(lambda: not opener.reconciler.present)
        asyncio.get_running_loop().call_later(0.05, setattr, kernel, "rules", FLUSHED)
        await opener.close_all()

    play(bus, story)


@pytest.mark.parametrize("state", ["flushed", "failed"])
def test_no_door_opens_while_rules_of_firewalld_are_not_active(
    bus: FakeBus, kernel: Kernel, caplog: pytest.LogCaptureFixture, state: str
) -> None:
    caplog.set_level("INFO")

    async def story(opener: RuleOpener, recorder: Recorder) -> None:
        await opener.settled()
        if state == "failed":
            bus.properties["state"] = "FAILED"
        else:
            kernel.rules = FLUSHED
        for _ in range(2):
            opener.reconciler.check()
            await until(lambda: not opener.is_available)
        assert opener.state is FirewalldState(state)
        opener.open(DOOR)
        opener.reconciler.check()
        await asyncio.sleep(0.1)
        assert recorder.calls == []
        assert bus.zones["public"] == []
        bus.properties["state"], kernel.rules = "RUNNING", WELL
        bus.signal(NAME, "Reloaded")
        await until(lambda: recorder.calls == ["open"])
        assert opener.is_available

    play(bus, story)
    remedy = {
        "flushed": "no door opens: run `systemctl restart firewalld`",
        "failed": "then `systemctl restart firewalld`",
    }[state]
    assert [line.levelname for line in caplog.records if remedy in line.getMessage()] == ["ERROR"]
    assert "firewalld's rules are active again" in caplog.text


KEPT_BY_FAILED = {
    # what the kernel shows while firewalld has failed, whether the door is called closed
    "the kernel has the door": (OPEN, False),
    "the kernel has no door": (WELL, True),
    "the kernel cannot be read": (None, False),
}


@pytest.mark.parametrize(("shown", "is_closed"), KEPT_BY_FAILED.values(), ids=KEPT_BY_FAILED)
def test_door_that_a_failed_firewalld_keeps_is_not_closed(
    bus: FakeBus, kernel: Kernel, caplog: pytest.LogCaptureFixture, shown: KernelRules | None, is_closed: bool
) -> None:
    """It started on top of the rules of an earlier one (CleanupOnExit=no), and failed."""
    bus.on_reload = clean(bus, kernel)

    async def story(opener: RuleOpener, recorder: Recorder) -> None:
        opener.open(DOOR)
        await opener.settled()
        bus.properties["state"], kernel.rules = "FAILED", shown
        await restarted(bus, opener)
        opener.close(DOOR)
        for _ in range(3):
            await opener.settled()
            opener.reconciler.check()
        await opener.settled()
        assert recorder.calls == ["open", *["closed"] * is_closed]
        if not is_closed:
            with pytest.raises(FirewallError, match="doors are not closed: firewalld is in the state FAILED"):
                await opener.close_all()
        bus.properties["state"], kernel.rules = "RUNNING", shown and WELL
        await restarted(bus, opener)
        await until(lambda: recorder.calls == ["open", "closed"])

    play(bus, story)
    line = "firewalld has failed and left 1 rule of doors active in the kernel"
    assert caplog.text.count(line) == (not is_closed)


def test_change_that_finds_no_chain_shows_flushed_tables(
    bus: FakeBus, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    """For a process that may not see the kernel."""
    kernel.rules = None
    text = "COMMAND_FAILED: 'python-nftables' failed: internal:0:0-0: Error: Could not process rule: No such file or "
    text += "directory"

    async def story(opener: RuleOpener, recorder: Recorder) -> None:
        await opener.settled()
        bus.errors["addRichRule"] = (f"{NAME}.Exception", text)
        opener.open(DOOR)
        await until(lambda: opener.state is FirewalldState.FLUSHED)
        opener.reconciler.check()
        await asyncio.sleep(0.05)
        assert opener.state is FirewalldState.FLUSHED
        bus.errors.clear()
        bus.signal(NAME, "Reloaded")
        await until(lambda: recorder.calls == ["open"])

    play(bus, story)
    assert len(re.findall("every port is open without a knock", caplog.text)) == 1


@pytest.mark.parametrize(
    ("version", "clears"),
    [
        *(("1.0.5", False), ("1.2.6", False), ("1.2.7", True), ("1.3.3", False), ("1.3.4", True), ("1.3.4-1", True)),
        *(("2.0.0", False), ("2.0.1", True), ("2.1.0", True), ("2.3", True), ("10.0", True), ("", True), ("x", True)),
    ],
)
def test_release_clears_old_rules_at_its_start_or_not(version: str, clears: bool) -> None:
    assert FirewalldFacts(version).clears_at_start is clears
