"""Faults and orders by hand: each first reports to the model what may follow, and then does it."""

import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from port_knocking_doors.sandbox.process import RequestError
from tests.helpers.doorstep import kill_with_crash_guard
from tests.helpers.waiting import wait_until
from tests.soak.model import Model, Tolerances, Window
from tests.soak.stage import CHECK, ENDED_WITHIN, LISTENED, SNIFFED, Link, Stage, orders

LEFT = r"left \d+ rules? of|of ours in the kernel are unknown to firewalld|doors are not closed"
"""Errors that the daemon logs of rules that firewalld leaves in the kernel."""
FOUR_HOURS = 4 * 3600.0
Record = Callable[[str], None]
BAD_FILES = (
    "bogus = 1\n",
    "opening_sequence = [",
    'opening_sequence = [1, 2, "x"]\n',
    "ports_to_controls = [70000]\n",
    "",  # a protocol that there is not
)


class Fault(NamedTuple):
    """One of the things that go wrong: how often it is drawn, and whether it ends the daemon."""

    do: Callable[["Faults"], None]
    weight: int
    ends: bool

    @property
    def name(self) -> str:
        return self.do.__name__


FAULTS: dict[str, Fault] = {}


def fault(weight: int = 1, *, ends: bool = False) -> Callable[[Callable[["Faults"], None]], Callable[["Faults"], None]]:
    """Registers a method of `Faults`."""

    def register(do: Callable[["Faults"], None]) -> Callable[["Faults"], None]:
        FAULTS[do.__name__] = Fault(do, weight, ends)
        return do

    return register


class Faults:
    """Does them, one after the other. `record` puts a line into the list of actions."""

    def __init__(self, stage: Stage, model: Model, chance: random.Random, record: Record) -> None:
        self.stage = stage
        self.model = model
        self.chance = chance
        self._record = record
        self._deck: list[Fault] = []
        self._skewed = 0.0
        self.done: dict[str, int] = {}
        self.errors_expected = 0
        """Failed reloads, of which the daemon owes a line of the level ERROR each."""
        self._allowed: list[str] = []
        self.deaths = 0
        """Times that the daemon was killed."""
        self.slowest_shut = 0.0
        """Seconds from a SIGKILL to the last door's end, at the most."""

    @property
    def patience(self) -> float:
        """How much slower than usual the machine may be."""
        return self.model.tolerances.settle / Tolerances().settle

    def allow(self, error: str) -> None:
        """From now on the log may have errors that match this regular expression."""
        if error not in self._allowed:
            self._allowed.append(error)

    def allows(self, line: str) -> bool:
        """Whether something was done that this error is about."""
        return any(re.search(error, line) for error in self._allowed)

    def draw(self, *, ends: bool) -> str:
        """The next one; with `ends` off, none that ends the daemon. All come in turn."""
        while True:
            if not self._deck:
                self._deck = [one for one in FAULTS.values() for _ in range(one.weight)]
                self.chance.shuffle(self._deck)
            drawn = self._deck.pop()
            if ends or not drawn.ends:
                return drawn.name

    def rest(self) -> float:
        """Seconds to let pass before the next one."""
        return self.chance.uniform(0.0, 2.5)

    def do(self, name: str) -> None:
        """One fault, from its beginning to its end."""
        self._record(f"begin {name}")
        FAULTS[name].do(self)
        self.done[name] = self.done.get(name, 0) + 1
        self._record(f"end {name}")

    @contextmanager
    def window(
        self,
        *,
        deaf: bool = False,
        deaf_listened: bool = False,
        blind: bool = False,
        cut: bool = False,
        source: str | None = None,
        settle: float | None = None,
    ) -> Iterator[Window]:
        """Something is not as usual from now to `settle` seconds after the end of the `with`."""
        after = self.model.tolerances.settle if settle is None else settle
        window = self.model.begins(Window(time.monotonic(), source=source))
        window.deaf, window.deaf_listened, window.blind, window.cut = deaf, deaf_listened, blind, cut
        try:
            yield window
        finally:
            window.end = time.monotonic() + after

    def pause(self, low: float, high: float) -> None:
        time.sleep(self.chance.uniform(low, high))

    # firewalld and the bus. ------------------------------------------------------------------------------------------

    @fault(weight=3)
    def reload(self) -> None:
        with self.window(blind=True, deaf_listened=True, cut=True):
            self.stage.box.firewalld.ask("", "reload", timeout=30)

    @fault()
    def complete_reload(self) -> None:
        with self.window(blind=True, deaf_listened=True, cut=True):
            self.stage.box.firewalld.ask("", "completeReload", timeout=30)

    @fault()
    def reload_storm(self) -> None:
        with self.window(blind=True, deaf_listened=True, cut=True):
            for _ in range(self.chance.randint(3, 6)):
                self.stage.box.firewalld.ask("", "reload", timeout=30)

    @fault(weight=2)
    def restart(self) -> None:
        with self.window(blind=True, deaf_listened=True, cut=True):
            self.stage.box.firewalld.stop()
            self.pause(0, 2)
            self.stage.box.firewalld.start()

    @fault()
    def crash(self) -> None:
        """The rules that a killed firewalld left in the kernel stay until firewalld clears the table."""
        self.allow(LEFT)
        with self.window(blind=True, deaf_listened=True, cut=True):
            self.stage.box.firewalld.kill()
            self.pause(0, 1)
            self.stage.box.firewalld.start()
            self.stage.box.firewalld.ask("", "reload", timeout=30)

    @fault(weight=2)
    def hang(self) -> None:
        with self.window(blind=True):
            self.stage.box.firewalld.freeze()
            self.pause(0.2, 6)
            self.stage.box.firewalld.thaw()
            self.await_firewalld()

    @fault()
    def bus_restart(self) -> None:
        box = self.stage.box
        with self.window(blind=True, deaf_listened=True, cut=True):
            firewalld = box.firewalld.process
            box.bus.restart()
            firewalld.wait(ENDED_WITHIN)
            self.pause(0, 1)
            box.firewalld.start()
            box.firewalld.ask("", "reload", timeout=30)

    @fault()
    def bus_hang(self) -> None:
        with self.window(blind=True):
            self.stage.box.bus.freeze()
            self.pause(0.2, 3)
            self.stage.box.bus.thaw()
            self.await_firewalld()

    def await_firewalld(self) -> None:
        assert self.stage.box.firewalld.answers(20)

    @fault()
    def runtime_to_permanent(self) -> None:
        """An administrator reloads firewalld while doors are open."""
        self.stage.box.firewall_cmd("--runtime-to-permanent")

    @fault()
    def meddle(self) -> None:
        """An administrator removes some of our rules, and adds one; the next look at the rules mends it."""
        box = self.stage.box
        with self.window(blind=True, deaf_listened=True, cut=True, settle=CHECK + self.model.tolerances.settle):
            rules = [rule for rule in box.rules("public") if 'priority="31313"' in rule]
            for rule in self.chance.sample(rules, min(len(rules), 3)):
                with suppress(RequestError):  # its door has closed meanwhile
                    box.firewalld.ask("zone", "removeRichRule", "public", rule)
            stray = (
                'rule priority="31313" family="ipv4" source address="10.66.0.1" port port="2222" protocol="tcp" accept'
            )
            box.firewalld.ask("zone", "addRichRule", "public", stray, 0)

    # Links. ----------------------------------------------------------------------------------------------------------

    @fault(weight=2)
    def flap(self) -> None:
        with self.window(deaf=True, cut=True, settle=1):
            for _ in range(self.chance.randint(1, 3)):
                self.stage.flap(self._a_link(), self.chance.uniform(0, 0.5))

    @fault(weight=2)
    def remake(self) -> None:
        with self.window(deaf=True, cut=True, settle=1):
            self.stage.remake(self._a_link(), self.chance.uniform(0, 1))

    def _a_link(self) -> Link:
        return self.chance.choice(self.stage.links)

    @fault(weight=2)
    def flood(self) -> None:
        """Forged sources, more than the table of knockers holds, at the first steps."""
        host = self._a_link().host
        count = self.chance.randint(3000, 12000)
        with self.window(deaf=True, cut=True, settle=1):
            self.model.note(time.monotonic(), "disturbed")
            self.stage.flood(host, f"10.{self.chance.randint(70, 250)}", count, [SNIFFED[0].port, LISTENED[0][0]])
            self.model.note(time.monotonic() + self.model.tolerances.blur, "disturbed")

    # The daemon, asked. ----------------------------------------------------------------------------------------------

    @fault(weight=3)
    def sighup_good(self) -> None:
        self._reconfigure(by_signal=True)

    @fault()
    def reload_command(self) -> None:
        self._reconfigure(by_signal=False)

    def _reconfigure(self, *, by_signal: bool) -> None:
        stage, start = self.stage, self.stage.log_size()
        number = 1 - stage.number if self.chance.random() < 0.7 else stage.number
        with self.window(deaf=True, settle=self.model.tolerances.blur), self.window(deaf_listened=True):
            stage.write(number)
            if by_signal:
                stage.daemon.send_signal(signal.SIGHUP)
            else:
                self.command("reload")
            stage.await_log("configuration reloaded", start)
            self.model.note(time.monotonic(), "orders_given", orders(number))

    @fault(weight=2)
    def sighup_bad(self) -> None:
        stage, start = self.stage, self.stage.log_size()
        good = stage.conf.read_text()
        bad = self.chance.choice(BAD_FILES)
        stage.put(bad + good if bad else good.replace("tcp:", "sctp:"))
        self.errors_expected += 1
        stage.daemon.send_signal(signal.SIGHUP)
        stage.await_log("configuration reload failed", start)
        stage.put(good)

    @fault(weight=2)
    def open_by_hand(self) -> None:
        source = self.chance.choice(self.stage.addresses)
        name = self.chance.choice(("main", "sniffed"))
        with self.window(source=source, blind=True, deaf=True, settle=self.model.tolerances.blur):
            start = time.monotonic()
            said = self.command("open", source, "--sequence", name)
            assert f"{source}: open: " in said, said
            self.model.note(time.monotonic(), "opened", start, source, name)

    @fault(weight=2)
    def close_by_hand(self) -> None:
        self._close(self.chance.choice(self.stage.addresses) if self.chance.random() < 0.7 else None)

    @fault(weight=0)
    def close_all(self) -> None:
        self._close(None)

    def _close(self, source: str | None) -> None:
        with self.window(source=source, blind=True, deaf=True, settle=self.model.tolerances.blur):
            start = time.monotonic()
            self.command("close", source or "--all")
            self.model.note(time.monotonic(), "closed", start, source)

    @fault(weight=2)
    def forget_by_hand(self) -> None:
        source = self.chance.choice(self.stage.addresses)
        with self.window(source=source, deaf=True, settle=self.model.tolerances.blur):
            start = time.monotonic()
            self.command("forget", source)
            self.model.note(time.monotonic(), "forgotten", start, source)

    def command(self, *words: str) -> str:
        status, said, complaint = self.stage.command(*words)
        assert (status, complaint) == (0, ""), f"{' '.join(words)} gave {status}: {complaint}"
        return said

    @fault(weight=2)
    def clock_jump(self) -> None:
        """The daemon's wall clock jumps by four hours, there or back."""
        self._skewed = 0.0 if self._skewed else self.chance.choice((-FOUR_HOURS, FOUR_HOURS))
        self.stage.skew(self._skewed)

    # The daemon's end. -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start a daemon, and return once it listens."""
        stage, start = self.stage, self.stage.log_size()
        stage.begin(*self.chance.choice(((), ("-i", "to-*"), ("-v",))))
        stage.await_log(r"\bready\b", start)
        self.model.note(time.monotonic(), "orders_given", orders(stage.number))

    @fault(weight=2, ends=True)
    def kill(self) -> None:
        with self.window(deaf=True, settle=self.model.tolerances.blur):
            self.end(self.model.tolerances.killed)
            self.await_shut(time.monotonic())
            self.start()

    @fault(ends=True)
    def kill_and_start_at_once(self) -> None:
        with self.window(deaf=True, settle=self.model.tolerances.blur):
            self.end(self.model.tolerances.killed)
            self.start()

    @fault(ends=True)
    def kill_with_crash_guard(self) -> None:
        """Only the next start closes the doors then."""
        with self.window(deaf=True, blind=True, settle=self.model.tolerances.blur):
            self.model.note(time.monotonic(), "died", self.model.tolerances.killed)
            self.deaths += 1
            kill_with_crash_guard(self.stage.box, self.stage.daemon)
            self.start()  # a door that is open longer than the model allows is found afterwards

    @fault(ends=True)
    def kill_under_a_hung_firewalld(self) -> None:
        with self.window(deaf=True, blind=True, settle=self.model.tolerances.settle):
            self.stage.box.firewalld.freeze()
            self.pause(0, 1)
            self.end(self.model.tolerances.killed)
            self.pause(0, 2)
            self.stage.box.firewalld.thaw()
            self.await_shut(time.monotonic())
            self.start()

    @fault(ends=True)
    def kill_during_a_reload(self) -> None:
        with self.window(deaf=True, blind=True, cut=True):
            reloading = self.stage.box.server.popen(["firewall-cmd", "--reload"])
            self.pause(0, 1.2)
            self.end(self.model.tolerances.killed)
            reloading.wait(ENDED_WITHIN)
            self.await_shut(time.monotonic())
            self.start()

    @fault(weight=2, ends=True)
    def sigterm(self) -> None:
        with self.window(deaf=True, settle=self.model.tolerances.blur):
            self.model.note(time.monotonic(), "died", self.model.tolerances.killed)
            self.stage.daemon.send_signal(self.chance.choice((signal.SIGTERM, signal.SIGINT)))
            status = self.stage.daemon.wait(ENDED_WITHIN)
            assert status == 0, f"SIGTERM: the daemon ended with {status}"
            assert not self.stage.in_kernel(), "a door is open after the daemon's end"
            self.start()

    def end(self, grace: float) -> None:
        self.model.note(time.monotonic(), "died", grace)
        self.deaths += 1
        self.stage.daemon.kill()
        self.stage.daemon.wait(ENDED_WITHIN)

    def await_shut(self, since: float) -> None:
        wait_until(
            lambda: not self.stage.in_kernel(),
            self.model.tolerances.killed,
            lambda: f"every door of the killed daemon shut; open: {sorted(self.stage.in_kernel())}",
        )
        self.slowest_shut = max(self.slowest_shut, time.monotonic() - since)
