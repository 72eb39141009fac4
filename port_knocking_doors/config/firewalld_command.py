"""Commands of firewall-cmd, with its rich language (firewall-cmd(1), firewalld.richlanguage(5))."""

import shlex
from collections import deque
from dataclasses import dataclass, field, replace

from port_knocking_doors.config import iptables_command
from port_knocking_doors.config.firewall_effect import DENYING, KNOCKER, Act, Effect, Unclear, ports_of, seconds_of
from port_knocking_doors.config.service_names import ServiceNames
from port_knocking_doors.model import Port, Protocol

_NOT_NEEDED = frozenset({"--reload", "--complete-reload", "--runtime-to-permanent"})
_WITH_VALUE = frozenset(
    f"--{verb}-{what}"
    for verb in ("add", "remove")
    for what in ("rich-rule", "port", "service", "source", "entry", "masquerade")
) | {"--zone", "--timeout", "--ipset", "--policy"}


@dataclass
class _Options:
    """The options of a command line, as far as they were read."""

    zone: str = ""
    seconds: float | None = None
    is_permanent: bool = False
    is_direct: bool = False
    changes: list[tuple[str, str]] = field(default_factory=list)
    """What is added or removed, with its value."""
    ipset: str = ""


def read(words: tuple[str, ...], services: ServiceNames) -> Effect | None:
    """The effect of a command line with one change; None for anything else."""
    if set(words[1:]) - {"-q", "--quiet"} and set(words[1:]) <= {*_NOT_NEEDED, "-q", "--quiet"}:
        return Effect(Act.IGNORED, told=(f"Left out: {' '.join(words)}. A door needs none.",))
    if "--direct" in words:
        return _direct(words, services)
    options = _options(words[1:])
    if options is None or len(options.changes) != 1:
        return None
    ((name, value),) = options.changes
    act = Act.OPEN if name.startswith("--add") else Act.CLOSE
    what = name.partition("-rich-")[2] or name.rpartition("-")[2]
    effect = _changed(act, what, value, options, services)
    if effect is None:
        return None
    told = []
    if options.zone:
        told.append(
            f"The command names zone {options.zone}; a door opens in the zone of the knocker's packets, or in that of "
            f'`zone = "{options.zone}"`, ahead of all tables.'
        )
    if options.is_permanent:
        told.append("The command changes the permanent configuration; a door does not.")
    return replace(effect, seconds=options.seconds, told=(*told, *effect.told))


def _options(words: tuple[str, ...]) -> _Options | None:
    options = _Options()
    left = deque(words)
    while left:
        name, equals, value = left.popleft().partition("=")
        if name in _WITH_VALUE and not equals:
            if not left:
                return None
            value = left.popleft()
        if name == "--zone" and value:
            options.zone = value
        elif name == "--timeout":
            options.seconds = seconds_of(value)
            if options.seconds is None and value != "0":
                return None
        elif name == "--permanent":
            options.is_permanent = True
        elif name == "--ipset":
            options.ipset = value
        elif name.startswith(("--add-", "--remove-")) and name in _WITH_VALUE:
            options.changes.append((name, value))
        elif name not in ("-q", "--quiet"):
            return None
    return options


def _changed(act: Act, what: str, value: str, options: _Options, services: ServiceNames) -> Effect | None:
    place = f"zone {options.zone}"
    if what == "rule":
        return _rich(act, value, place, services)
    if what == "service":
        return Effect(act, services.firewalld(value) or (), place, unclear=Unclear.EVERY_ADDRESS)
    if what == "port":
        number, _, protocol = value.partition("/")
        if protocol not in list(Protocol):
            return None
        ports = ports_of([number], (Protocol(protocol),), services)
        return Effect(act, ports if isinstance(ports, tuple) else (), place, unclear=Unclear.EVERY_ADDRESS)
    if what == "source" and value in KNOCKER and not DENYING.search(options.zone):
        return Effect(act, (), place, unclear=Unclear.EVERY_PORT if options.zone == "trusted" else Unclear.ELSEWHERE)
    if what == "entry" and value in KNOCKER and options.ipset and not DENYING.search(options.ipset):
        return Effect(act, (), f"set {options.ipset}", unclear=Unclear.ELSEWHERE)
    return None


def _direct(words: tuple[str, ...], services: ServiceNames) -> Effect | None:
    """`--direct --add-rule ipv4 filter CHAIN PRIORITY RULE…`, a rule of iptables."""
    told = ("The command changes the permanent configuration; a door does not.",) if "--permanent" in words else ()
    plain = [word for word in words[1:] if word not in ("--direct", "--permanent", "-q", "--quiet")]
    if len(plain) < 6 or plain[0] not in ("--add-rule", "--remove-rule") or plain[2] != "filter":
        return None
    verb, family, _, chain, _, *rest = plain
    if family not in ("ipv4", "ipv6"):
        return None
    program = "iptables" if family == "ipv4" else "ip6tables"
    name = chain.removesuffix("_direct")
    effect = iptables_command.read((program, "-A" if verb == "--add-rule" else "-D", name, *rest), services)
    return effect and replace(effect, told=(*told, *effect.told))


@dataclass
class _RichRule:
    family: int = 0
    source: str = ""
    ports: tuple[Port, ...] | Unclear | None = Unclear.EVERY_PORT
    told: list[str] = field(default_factory=list)


def _rich(act: Act, text: str, place: str, services: ServiceNames) -> Effect | None:
    rule = _rich_rule(text, services)
    if rule is None or rule.ports is None or rule.source not in {*KNOCKER, ""}:
        return None
    ports = rule.ports if isinstance(rule.ports, tuple) else ()
    unclear = rule.ports if isinstance(rule.ports, Unclear) else None
    if not rule.source:
        unclear = Unclear.EVERY_ADDRESS
    return Effect(act, ports, place, rule.family, unclear=unclear, told=tuple(rule.told))


def _rich_rule(text: str, services: ServiceNames) -> _RichRule | None:
    """A rule that accepts; None if it is none, or has an element that narrows it."""
    try:
        left = deque(shlex.split(text))
    except ValueError:
        return None
    if not left or left.popleft() != "rule":
        return None
    rule = _RichRule()
    while left:
        word = left.popleft()
        values = {}
        while left and "=" in left[0]:
            name, _, value = left.popleft().partition("=")
            values[name] = value
        if word.startswith(("family=", "priority=")):
            rule.family = {"family=ipv4": 4, "family=ipv6": 6}.get(word, rule.family)
            rule.family = {"ipv4": 4, "ipv6": 6}.get(values.pop("family", ""), rule.family)
            values.pop("priority", "")
            if values:
                return None
        elif word == "source" and set(values) == {"address"}:
            rule.source = values["address"]
        elif word == "port" and set(values) == {"port", "protocol"} and values["protocol"] in list(Protocol):
            rule.ports = ports_of([values["port"]], (Protocol(values["protocol"]),), services)
        elif word == "service" and set(values) == {"name"}:
            rule.ports = services.firewalld(values["name"])
        elif word in ("log", "audit", "nflog"):
            rule.told.append(f"Left out: the rule's {word}. The log of this program has each door.")
        elif word == "accept" and not left and not values:
            return rule
        else:
            return None
    return None
