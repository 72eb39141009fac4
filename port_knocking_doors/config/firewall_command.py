"""What a start or stop command does to the firewall for the knocker, and what it does besides."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from port_knocking_doors.config import firewalld_command, iptables_command, nft_command, ufw_command
from port_knocking_doors.config.firewall_effect import Act, Effect
from port_knocking_doors.config.service_names import ServiceNames
from port_knocking_doors.config.shell_line import SimpleCommand, inner_line, split, without_sudo
from port_knocking_doors.model import Port

_Read = Callable[[tuple[str, ...], ServiceNames], Effect | None]

PROGRAMS: dict[str, _Read] = {
    "iptables": iptables_command.read,
    "ip6tables": iptables_command.read,
    "iptables-nft": iptables_command.read,
    "iptables-legacy": iptables_command.read,
    "ip6tables-nft": iptables_command.read,
    "ip6tables-legacy": iptables_command.read,
    "ipset": iptables_command.read_ipset,
    "knock_add": iptables_command.read_helper,
    "knock_helper_ipt.sh": iptables_command.read_helper,
    "firewall-cmd": firewalld_command.read,
    "ufw": ufw_command.read,
    "nft": nft_command.read,
}
"""A reader for each program that changes a firewall."""
_SAVING = frozenset(
    {
        ("netfilter-persistent", "save"),
        ("service", "iptables", "save"),
        ("service", "ip6tables", "save"),
        ("service", "netfilter-persistent", "save"),
        ("invoke-rc.d", "iptables-persistent", "save"),
        ("systemctl", "reload", "firewalld"),
        ("systemctl", "reload", "firewalld.service"),
        ("service", "firewalld", "reload"),
    }
)
_SUCCEEDING = frozenset({"logger", "echo", "printf", "date", "touch", "sleep", "true", ":"})
"""Programs whose success is no condition for what follows `&&`."""
_DECIDING = frozenset(
    {"exit", "return", "exec", "set", "trap", "eval", ".", "source", "alias", "wait", "at", "batch", "systemd-run"}
)
"""Commands that decide whether or when others run."""
_FIREWALL = re.compile(r"(?<![\w-])(?:ip6?tables|ipset|nft|ufw|firewall-cmd|knock_add)(?!\w)|\|\s*(?:at|batch)\b")
"""A firewall's program within another command, or a later time for one: what that does is not known."""
_PERIOD = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass
class Reading:
    """A command line that changes the firewall. `rest` runs besides."""

    opened: list[Effect] = field(default_factory=list)
    closed: list[Effect] = field(default_factory=list)
    rest: str = ""
    told: list[str] = field(default_factory=list)
    seconds: float | None = None
    """The time after which the line or the firewall itself closes what it opens."""
    waited: float = 0
    """Seconds that the line sleeps after something was opened."""

    @property
    def ports(self) -> tuple[Port, ...]:
        """The ports that it opens."""
        return tuple(sorted({port for effect in self.opened for port in effect.ports}))

    @property
    def family(self) -> int:
        """IP's version that it opens for; 0 for both."""
        families = {effect.family for effect in self.opened}
        return families.pop() if len(families) == 1 else 0

    def undoes(self, other: "Reading") -> bool:
        """Whether this closes all that `other` opens, and nothing else."""
        return (
            bool(self.closed)
            and not self.opened
            and all(any(one.undoes(theirs) for theirs in other.opened) for one in self.closed)
            and all(any(one.undoes(theirs) for one in self.closed) for theirs in other.opened)
        )


def read(line: str, services: ServiceNames) -> Reading | None:
    """The effect of a command line; None if it has none on a firewall, or not all of it is understood."""
    cut = split(line)
    if cut is None:
        return None
    if (inner := inner_line(cut)) is not None:
        return read(inner, services)
    reading = Reading()
    checks: list[Effect] = []
    before: SimpleCommand | None = None
    is_sure = True
    for command in cut.commands:
        is_sure = _is_sure(command, before, is_sure)
        effect = _effect(command, services)
        if isinstance(effect, Effect):
            if not is_sure or not _add(reading, effect, command, checks):
                return None
        elif effect is None or checks or not _run(reading, command, before):
            return None
        before = command
    if not (reading.opened or reading.closed) or checks or (reading.waited and reading.seconds is None):
        return None
    if cut.comment:
        reading.told.append(f"The command's comment: {cut.comment}")
    return reading


def _is_sure(command: SimpleCommand, before: SimpleCommand | None, is_sure: bool) -> bool:
    """Whether the command runs whatever commands that are no firewall's return; `is_sure` for the one before."""
    if command.join not in ("&&", "||") or before is None:
        return True
    return is_sure and (command.join == "||" or _name(before) in {*PROGRAMS, *_SUCCEEDING} or _is_start(before))


def _run(reading: Reading, command: SimpleCommand, before: SimpleCommand | None) -> bool:
    """Add a command that changes no firewall; False if it decides about others, or if that is not known."""
    name = _name(command)
    if command.join == "||":
        return name in ("true", ":")
    if name == "sleep" and reading.opened:
        seconds = _sleep(command)
        reading.waited += seconds or 0
        return seconds is not None and reading.seconds is None
    is_text = name in _SUCCEEDING and command.is_plain
    if reading.waited or name in _DECIDING or (_FIREWALL.search(command.text) and not is_text):
        return False
    is_next = before is not None and bool(reading.rest) and reading.rest.endswith(before.text)
    join = " && " if is_next and command.join == "&&" else " " if reading.rest.endswith("&") else "; "
    reading.rest += f"{join if reading.rest else ''}{command.text}"
    return True


def _name(command: SimpleCommand) -> str:
    words = without_sudo(command.words)
    return words[0].rpartition("/")[2] if words else ""


def _is_start(command: SimpleCommand) -> bool:
    """Whether it starts a service: what follows needs the service, and opens nothing that it would not without it."""
    return _name(command) in ("service", "systemctl") and not {"start", "restart"}.isdisjoint(command.words)


def names_firewall(line: str) -> bool:
    """Whether a firewall's program is named anywhere in the line."""
    return _FIREWALL.search(line) is not None


def _unasked(command: SimpleCommand) -> SimpleCommand:
    """The command without the answer to its question: `yes | COMMAND`, `echo y | COMMAND`."""
    answer, pipe, rest = command.text.partition("|")
    if pipe and answer.split() in (["yes"], ["echo", "y"], ["echo", "Y"], ["echo", "yes"]):
        asked = split(rest)
        if asked is not None and len(asked.commands) == 1:
            return replace(asked.commands[0], join=command.join)
    return command


def _effect(command: SimpleCommand, services: ServiceNames) -> Effect | str | None:
    """The effect of one command; its text if that has none on a firewall; None if that is not known."""
    command = _unasked(command)
    words = without_sudo(command.words)
    name = words[0].rpartition("/")[2] if words else ""
    if (name, *words[1:]) in _SAVING or name in ("iptables-save", "ip6tables-save"):
        return Effect(Act.IGNORED, told=(f"Left out: {command.text}. A door needs none.",))
    if name not in PROGRAMS:
        return command.text
    effect = PROGRAMS[name]((name, *words[1:]), services)
    if effect is None or command.is_plain:
        return effect
    is_by_number = effect.act is Act.CLOSE and not effect.ports and effect.unclear is None
    return effect if is_by_number else None  # the number is computed


def _sleep(command: SimpleCommand) -> float | None:
    """The seconds of a `sleep` (sleep(1)); None if it is in the background, or not understood."""
    _, *periods = without_sudo(command.words)
    found = [_PERIOD.fullmatch(period) for period in periods]
    if not found or not command.is_plain or command.text.endswith("&"):
        return None
    return sum(float(one[1]) * _UNITS[one[2]] for one in found if one) if all(found) else None


def _add(reading: Reading, effect: Effect, command: SimpleCommand, checks: list[Effect]) -> bool:
    """Add an effect; False if it depends on an earlier one in a way that is not understood."""
    if command.join == "||":
        # `iptables -C RULE || iptables -A RULE`: a rule that exists is not added again.
        if not checks or replace(checks.pop(), act=effect.act) != effect:
            return False
    elif checks:
        return False
    if effect.act is Act.CHECK:
        checks.append(effect)
    elif effect.act is Act.CLOSE and reading.waited:
        if not any(effect.undoes(one) for one in reading.opened):
            return False
        reading.seconds = min(reading.waited, reading.seconds or reading.waited)
    elif effect.act is Act.CLOSE:
        reading.closed.append(effect)
    elif effect.act is Act.OPEN:
        if reading.waited:
            return False
        # A rule that is removed first is not added twice.
        reading.closed = [one for one in reading.closed if not one.undoes(effect)]
        reading.opened.append(effect)
        if effect.seconds is not None:
            reading.seconds = min(effect.seconds, reading.seconds or effect.seconds)
    reading.told += [sentence for sentence in effect.told if sentence not in reading.told]
    return True
