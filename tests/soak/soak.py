"""The run: rounds of random visits and faults, checks of the doors, and the quiet after each round."""

import json
import random
import re
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import count, pairwise
from pathlib import Path

from port_knocking_doors.errors import SandboxError
from port_knocking_doors.sandbox import Sandbox
from tests.helpers.waiting import wait_until
from tests.soak import bad_days  # noqa: F401 (it registers its faults)
from tests.soak.faults import Faults
from tests.soak.model import Hit, Model, Packet, Tolerances
from tests.soak.stage import ENDED_WITHIN, GUARDED, GUARDED_TOO, LISTENED, SECRETS, SYN, Link, Stage, orders

ROUND = 15.0
"""Seconds of visits and faults, before all goes quiet."""
PEACE = 2.0
"""Seconds of each round ahead of the first fault, and again once all is as usual after the last one."""
WARM = 2
"""Rounds in which the daemon may still open descriptors."""
GROWTH = 2048
"""KiB that it may grow in the second half of a life, behind its first reload of the configuration. That one costs some
3,300 KiB, since both configurations are there for a moment; the next 239 times, 400 KiB in all (measured)."""
JUDGED = 4
"""Rounds that a life must have for that."""
MOST_RESIDENT = 65536
_ACTIONS_TOLD = 40
_LINES_TOLD = 60
_TRIES = 3
_SLOW = ("resent", "lost", "syns")
"""What clients send that get no answer, lose a packet or open two connections."""

Say = Callable[[str], None]


class Finding(AssertionError):  # noqa: N818 (what is found need not be an error of ours)
    """The daemon broke a promise, or the test a rule of its own; the text has all that is needed to look into it."""


class Soak:
    """One run, over once `run` has returned.

    `patience`: how much slower than usual the machine may be. `first`: faults to begin with, whatever is drawn.
    `hasty`: at the end of a round doors are shut by hand, and not waited for.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seconds: float,
        seed: int,
        say: Say,
        patience: float = 1.0,
        first: Sequence[str] = (),
        addresses: int = 20,
        hasty: bool = False,
        broken: str = "",
    ) -> None:
        self._folder = folder
        self._seconds = seconds
        self._seed = seed
        self._say = say
        self._first = list(first)
        self._addresses = addresses
        self._hasty = hasty
        self._broken = broken
        self._chance = random.Random(seed)
        self._echo = count(2000)
        self._visits = count(1)
        self._visited: dict[str, int] = {}
        self._tolerances = Tolerances().times(patience)
        self._model = Model(orders(0), [orders(0), orders(1)], self._tolerances)
        self._began = time.monotonic()
        self._actions: deque[str] = deque(maxlen=_ACTIONS_TOLD)
        self._stage: Stage
        self._faults: Faults
        self._read = 0
        self._errors = 0
        self._warm: tuple[int, int] | None = None
        self._life: list[int] = []
        """KiB of memory of the daemon that runs, after each round."""
        self._reloads = [0]
        """Reloads of the configuration in all, ahead of the first of these rounds and after each."""
        self._rounds_of_life = 0
        self._resident = 0
        self._lives = 0
        self.counts: Counter[str] = Counter()

    # The whole. ------------------------------------------------------------------------------------------------------

    def run(self) -> list[str]:
        """What was done and counted, a line each. Raises `Finding`."""
        with Sandbox(clients=("client", "stranger")) as box:
            stage = self._stage = Stage(box, self._folder, addresses=self._addresses, broken=self._broken)
            chance = random.Random(f"{self._seed} faults")
            self._faults = Faults(stage, self._model, chance, self._act)
            try:
                self._play()
            except Finding:
                raise
            except AssertionError as error:
                raise self._finding(str(error)) from error
            except Exception as error:
                raise self._finding("".join(traceback.format_exception(error)).rstrip()) from error
            finally:
                stage.close()
        return self.report()

    def _play(self) -> None:
        self._began = time.monotonic()
        self._faults.start()
        end = self._began + self._seconds
        rounds = 0
        while not rounds or time.monotonic() + 1 < end:
            # The second half is one life of the daemon's, for the sake of its memory.
            ends = time.monotonic() < self._began + self._seconds / 2
            self._round(min(ROUND, max(3.0, end - time.monotonic())), ends=ends)
            rounds += 1
            self._say(self._progress(rounds))
        self.counts["rounds"] = rounds
        self._judge_memory()
        self._end()

    def _round(self, seconds: float, *, ends: bool) -> None:
        deaths = self._faults.deaths + self._faults.done.get("sigterm", 0)
        over = threading.Event()
        failed: list[BaseException] = []
        worker = threading.Thread(target=self._break, args=(over, ends, failed), name="faults")
        until = time.monotonic() + seconds
        worker.start()
        try:
            self._visit_until(until, lambda: bool(failed))
            while self._first and not failed:
                self._visit_until(time.monotonic() + 0.1)
        finally:
            over.set()
            while worker.is_alive():  # a fault takes what it takes; meanwhile, there is more to see
                self._look()
                worker.join(0.2)
        if failed:
            raise failed[0]
        self._visit_until(self._model.usual_at() + PEACE)
        if self._hasty:
            self._faults.do("close_all")
        self._grow_quiet()
        is_same = deaths == self._faults.deaths + self._faults.done.get("sigterm", 0)
        self._rounds_of_life = self._rounds_of_life + 1 if is_same else 1
        self._look_at_rest()

    def _visit_until(self, moment: float, is_enough: Callable[[], bool] = lambda: False) -> None:
        while time.monotonic() < moment and not is_enough():
            self._visit()
            self._look()

    def _break(self, over: threading.Event, ends: bool, failed: list[BaseException]) -> None:
        try:
            over.wait(PEACE)
            while self._first:
                self._faults.do(self._first[0])
                del self._first[0]
            while not over.wait(self._faults.rest()):
                self._faults.do(self._faults.draw(ends=ends))
        except BaseException as error:
            self._first.clear()
            failed.append(error)

    # Visits. ---------------------------------------------------------------------------------------------------------

    def _visit(self) -> None:
        """Some addresses of both links knock at the same time, right and wrong."""
        asked: list[tuple[Link, list[Packet], list[float]]] = []
        for link in self._stage.links:
            packets, waits = self._draw_visits(link)
            rows = [
                (
                    packet.source,
                    packet.hit.protocol,
                    packet.hit.port,
                    packet.hit.flags,
                    (b"knock\n" if packet.right_payload else b"knock!").hex(),
                    *packet.echo,
                    wait,
                )
                for packet, wait in zip(packets, waits, strict=True)
            ]
            link.sender.begin("send", packets=rows)
            asked.append((link, packets, waits))
        for link, packets, _ in asked:
            for packet, (start, end, taken) in zip(packets, link.sender.answer(), strict=True):
                self.counts["packets"] += taken
                if taken:
                    self._model.note(end, "sent", packet._replace(start=start, end=end))
        self._model.advance()

    def _draw_visits(self, link: Link) -> tuple[list[Packet], list[float]]:
        """Packets of some visitors, mixed: each one's own stay in order."""
        # Who has rested is known best.
        rested = sorted(link.addresses, key=lambda source: self._visited.get(source, 0))[: len(link.addresses) // 2]
        visitors = self._chance.sample(rested, self._chance.randint(2, min(8, len(rested))))
        self._visited.update(dict.fromkeys(visitors, next(self._visits)))
        scripts = [self._draw_script(source) for source in visitors]
        mixed: list[Packet] = []
        while scripts:
            script = self._chance.choice(scripts)
            mixed.append(script.pop(0))
            if not script:
                scripts.remove(script)
        slow = len(visitors) <= 3 and self._chance.random() < 0.3
        pause = self._chance.choice((0.0, 0.002, 0.01))
        waits = [self._chance.uniform(0, 0.25) if slow else pause for _ in mixed]
        return mixed, waits

    def _draw_script(self, source: str) -> list[Packet]:
        plan = self._chance.choice(orders(self._stage.number).plans)
        steps = list(plan.steps)
        kind = self._chance.choices(
            ("right", "twice", "order", "half", "payload", "doubled", "flags", "junk", "other", "erred", *_SLOW),
            (8, 2, 2, 2, 1, 2, 1, 1, 1, 2, 3, 3, 2),
        )[0]
        self.counts[f"visits, {kind}"] += 1
        if kind == "order":
            self._chance.shuffle(steps)
        elif kind == "half":
            steps = steps[: self._chance.randint(1, len(steps) - 1)]
        elif kind == "junk":
            steps.insert(self._chance.randint(0, len(steps)), Hit("udp", self._chance.randint(20000, 22000)))
        elif kind == "other":
            steps = [Hit("udp", port) for port in LISTENED[1 - self._stage.number]]
        elif kind == "flags":
            steps = [step._replace(flags=self._chance.choice((0x01, 0x02, 0x10, 0x12))) for step in steps]
            steps = [step if step.protocol == "tcp" else step._replace(flags=0) for step in steps]
        elif kind == "erred":
            steps[:0] = [steps[-1]] * len(steps)  # one more wrong knock than is forgiven
        elif kind == "twice":
            steps *= 2
        packets = [self._packet(source, step, kind != "payload") for step in steps]
        return self._repeated(kind, packets)

    def _repeated(self, kind: str, packets: list[Packet]) -> list[Packet]:
        """What comes more than once: from the network, or from a client that waits for answers in a zone that drops."""
        if kind == "doubled":  # the network brought each of them twice
            return [packet for packet in packets for _ in range(2)]
        if kind == "resent":  # TCP sends every SYN again that had no answer, each time that a second has gone by
            resent = ([one for one in packets[:place] if one.hit.flags] for place in range(len(packets)))
            return [packet for again, one in zip(resent, packets, strict=True) for packet in (*again, one)]
        if kind == "lost":  # one of them, and the client starts over
            lost = self._chance.randrange(len(packets))
            again = [self._packet(packet.source, packet.hit, True) for packet in packets]
            return [*packets[:lost], *packets[lost + 1 :], *again]
        if kind == "syns":  # a second connection to each port
            return [one for packet in packets for one in (packet, *self._second_syn(packet))]
        return packets

    def _second_syn(self, packet: Packet) -> list[Packet]:
        return [self._packet(packet.source, packet.hit, True)] if packet.hit.flags == SYN else []

    def _packet(self, source: str, step: Hit, right_payload: bool) -> Packet:
        number = next(self._echo)
        return Packet(0.0, 0.0, source, step, right_payload, (1024 + number % 30000, number))

    # Looks. ----------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """One check of the doors, in one of four ways."""
        way = self._chance.choices(("firewalld", "kernel", "connections", "log", "status"), (3, 4, 5, 2, 1))[0]
        if way == "connections":
            self._try_connections()
        elif way == "log":
            self._read_log()
        elif self._model.is_calm(time.monotonic(), time.monotonic()):
            look = {"firewalld": self._stage.in_firewalld, "kernel": self._stage.in_kernel, "status": self._in_status}
            self._compare(way, look[way])

    def _compare(self, way: str, look: Callable[[], set[tuple[str, int]]]) -> None:
        start = time.monotonic()
        try:
            seen = look()
        except SandboxError as error:
            end = time.monotonic()
            if self._model.is_calm(start, end) and (way != "status" or self._model.is_heard(start, end)):
                raise self._finding(f"{way} cannot be looked at while all is well: {error}") from error
            return
        end = time.monotonic()
        if not self._model.is_calm(start, end):
            return
        must = self._model.must(start, end)
        stray = sorted(door for door in seen if not self._model.may(start, end, *door))
        missing = sorted(must - seen)
        self.counts[f"looks, {way}"] += 1
        self.counts["doors seen"] += len(seen)
        self.counts["doors that must be open"] += len(must)
        if stray or missing:
            what = [f"open and should not be: {stray}"] * bool(stray) + [f"shut and should be open: {missing}"] * bool(
                missing
            )
            raise self._finding(f"{way}: {'; '.join(what)}", *(source for source, _ in (*stray, *missing)))

    def _in_status(self) -> set[tuple[str, int]]:
        status, said, complaint = self._stage.command("status", "--json")
        if status:
            raise SandboxError(f"status gave {status}: {complaint}")
        doors = [door for door in json.loads(said)["doors"] if door["standing"] == "open"]
        return {(door["address"], int(opens.partition("/")[0])) for door in doors for opens in door["opens"]}

    def _try_connections(self) -> None:
        """Real connections: of two who must get in, two who may, and two others."""
        for link in self._stage.links:
            when = time.monotonic()
            open_now = sorted(door for door in self._model.must(when, when + 1) if door[0] in link.addresses)
            tries = self._chance.sample(open_now, min(2, len(open_now)))
            tries += [
                (self._chance.choice(link.addresses), self._chance.choice((GUARDED, GUARDED_TOO))) for _ in range(2)
            ]
            for attempt in range(_TRIES):
                link.sender.begin("connect", tries=tries)
                outcomes = list(zip(tries, link.sender.answer(), strict=True))
                refused = [
                    door for door, (start, end, outcome) in outcomes if self._is_wrong(door, start, end, outcome)
                ]
                if not refused:
                    break
                tries = refused
                if attempt == _TRIES - 1:
                    raise self._finding(
                        f"connections: who should get in does not: {outcomes}", *(source for source, _ in refused)
                    )

    def _is_wrong(self, door: tuple[str, int], start: float, end: float, outcome: str) -> bool:
        """Whether an address that must get in did not; raises where one got in that must not."""
        if not self._model.is_connected(start, end):
            return False
        self.counts[f"connections, {'let in' if outcome == 'open' else 'kept out'}"] += 1
        if outcome == "open" and not self._model.may(start, end, *door):
            raise self._finding(f"connections: {door} got in and should not", door[0])
        return outcome != "open" and door in self._model.must(start, end)

    def _read_log(self) -> None:
        """No traceback, no error but those that are owed, no secret."""
        text = self._stage.log_from(self._read)
        whole, newline, _ = text.rpartition("\n")
        for line in whole.splitlines():
            self.counts["lines of log"] += 1
            if "Traceback" in line:
                raise self._finding("log: a traceback")
            if found := re.search(rf"(?<![\d:.-])({'|'.join(map(str, SECRETS))})(?![\d:.-])", line):
                raise self._finding(f"log: a port of a sequence: {found[1]}")
            if " ERROR " in line and not self._faults.allows(line):
                self._errors += 1
                if "reload failed" not in line or self._errors > self._faults.errors_expected:
                    raise self._finding(f"log: an error that nothing was done for: {line}")
        self._read += len((whole + newline).encode())

    # The quiet. ------------------------------------------------------------------------------------------------------

    def _grow_quiet(self) -> None:
        """No more knocks and faults: what is open stays so for its time, and no longer."""
        self._model.advance()
        while time.monotonic() < self._model.quiet_at():
            self._look()
            time.sleep(0.1)

    def _look_at_rest(self) -> None:
        """Nothing is open, nothing is left, and the daemon is as it was."""
        stage = self._stage
        if stage.daemon.poll() is not None:
            raise self._finding(f"the daemon ended with {stage.daemon.poll()}")
        for way, look in (("firewalld", stage.in_firewalld), ("kernel", stage.in_kernel)):
            if still := sorted(look()):
                raise self._finding(f"at rest, {way}: doors are open: {still}")
        wanted = {f'rule priority="31313" port port="{port}" protocol="udp" accept' for port in LISTENED[stage.number]}
        try:
            wait_until(lambda: set(stage.marked()) == wanted, self._tolerances.settle, "the marked rules", every=0.3)
        except AssertionError as error:
            raise self._finding(f"at rest: marked rules are {stage.marked()}, expected {sorted(wanted)}") from error
        self._judge_commands()
        self._read_log()
        if self._errors != self._faults.errors_expected:
            raise self._finding(f"log: {self._errors} errors, {self._faults.errors_expected} are owed")
        family, descriptors, resident = stage.children(), stage.descriptors(), stage.resident()
        if len(family) != 1:
            raise self._finding(f"at rest: the daemon's processes are {family}, expected its crash guard alone")
        if resident > MOST_RESIDENT:
            raise self._finding(f"at rest: {resident} KiB of memory")
        self._resident = resident
        self._life = [*(self._life if self._rounds_of_life > 1 else []), resident]
        reloads = sum(self._faults.done.get(name, 0) for name in ("sighup_good", "reload_command"))
        self._reloads = [*(self._reloads if self._rounds_of_life > 1 else self._reloads[-1:]), reloads]
        if self._rounds_of_life <= WARM:
            self._warm = (descriptors, stage.daemon.inner_pid)
        elif self._warm is not None and descriptors != self._warm[0]:
            raise self._finding(f"at rest: {descriptors} descriptors are open, {self._warm[0]} were")
        self._model.forget_windows(time.monotonic())

    def _judge_commands(self) -> None:
        """Every start has its stop, and every sequence that was surely completed had a start."""
        ran: dict[str, list[str]] = {}
        for line in self._stage.ran.read_text().splitlines():
            which, source = line.split()
            ran.setdefault(source, []).append(which)
        more = 0
        for source in self._stage.addresses:
            rows = ran.get(source, [])
            starts, stops = rows.count("start"), rows.count("stop")
            least, most = self._model.starts(source, "commands")
            if not least <= starts <= most:
                raise self._finding(f"commands: {starts} starts for {source}, expected {least} to {most}", source)
            if rows and rows[-1] != "stop":
                raise self._finding(f"commands: no stop behind the last start for {source}", source)
            if any(pair == ("start", "start") for pair in pairwise(rows)):
                raise self._finding(f"commands: two starts without a stop between them for {source}")
            more += max(0, stops - starts)
        self.counts["start commands"] = sum(rows.count("start") for rows in ran.values())
        self.counts["stop commands"] = sum(rows.count("stop") for rows in ran.values())
        # One that ran while the daemon was killed runs again.
        if more > self._faults.deaths * 16:
            raise self._finding(f"commands: {more} stops more than starts, after {self._faults.deaths} kills")

    def _judge_memory(self) -> None:
        if len(self._life) < JUDGED:
            self._say("memory: not judged, the daemon's last life was too short")
            return
        # In a life of few rounds the first reload, and what it costs, may be in the second half.
        first = next((number for number, reloads in enumerate(self._reloads) if reloads > self._reloads[0]), 0)
        warm = max(self._life[: max(len(self._life) // 2, first)])
        growth = self._resident - warm
        self._say(f"memory: {warm} KiB at the most in the first half of its last life, {self._resident} at the end")
        self.counts["KiB of memory in the first half of its last life"] = warm
        self.counts["KiB of memory at the end"] = self._resident
        if growth > GROWTH:
            raise self._finding(f"memory: it grew by {growth} KiB in {len(self._life)} rounds, {GROWTH} are allowed")

    def _end(self) -> None:
        """The daemon ends, and nothing of it is left."""
        stage = self._stage
        self._act("the end")
        stage.daemon.terminate()
        status = stage.daemon.wait(ENDED_WITHIN)
        stage.reader.wait(ENDED_WITHIN)
        self._read_log()
        if status != 0:
            raise self._finding(f"at the end: the daemon ended with {status}")
        if left := stage.marked():
            raise self._finding(f"at the end: rules are left: {left}")
        if still := sorted(stage.in_kernel()):
            raise self._finding(f"at the end: doors are open in the kernel: {still}")
        try:
            wait_until(lambda: not stage.ours(), self._tolerances.settle, "no process left")
        except AssertionError as error:
            raise self._finding(f"at the end: processes are left: {stage.ours()}") from error
        if left := stage.left_files():
            raise self._finding(f"at the end: files are left: {left}")
        self._judge_commands()

    # What is reported. ------------------------------------------------------------------------------------------------

    def _act(self, action: str) -> None:
        self._actions.append(f"{time.monotonic() - self._began:8.2f} {action}")

    def _finding(self, what: str, *sources: str) -> Finding:
        self._stage.daemon.stderr.drain()
        when = time.monotonic() - self._began
        lines = [f"soak: after {when:.2f} s: {what}", f"seed {self._seed}, the last actions (seconds, what):"]
        lines += list(self._actions)
        for source in dict.fromkeys(sources):
            lines += self._model.history(source)
        lines += ["the daemon's log ends so:", *self._stage.log_from(0).splitlines()[-_LINES_TOLD:]]
        return Finding("\n".join(lines))

    def _progress(self, rounds: int) -> str:
        visits = sum(number for name, number in self.counts.items() if name.startswith("visits"))
        looks = sum(number for name, number in self.counts.items() if name.startswith(("looks", "connections")))
        return (
            f"{time.monotonic() - self._began:4.0f} s: round {rounds}: {visits} visits,"
            f" {self.counts['packets']} packets,"
            f" {sum(self._faults.done.values())} faults and commands, {looks} looks, {self._resident} KiB"
        )

    @property
    def surely_completed(self) -> int:
        """How many sequences were completed of which that was sure."""
        return self._model.counts["surely completed"]

    def report(self) -> list[str]:
        """What was done and counted."""
        every = {**self.counts, **self._model.counts}
        lines = [f"{number:8d} {name}" for name, number in sorted(every.items())]
        lines += [f"{number:8d} {name.replace('_', ' ')}" for name, number in sorted(self._faults.done.items())]
        lines.append(f"{self._faults.slowest_shut:8.2f} s from a SIGKILL to the last door shut, at the most")
        return lines
