"""Commands of iptables and ip6tables, of knockd's helper script for them, and of ipset."""

from collections import deque
from dataclasses import dataclass, field, replace

from port_knocking_doors.config.firewall_effect import (
    DENYING,
    KNOCKER,
    OF_OTHER_PACKETS,
    Act,
    Effect,
    Unclear,
    ports_of,
    seconds_of,
)
from port_knocking_doors.config.service_names import ServiceNames
from port_knocking_doors.model import Protocol

_ACTS = {
    **dict.fromkeys(("-A", "--append", "-I", "--insert"), Act.OPEN),
    **dict.fromkeys(("-D", "--delete"), Act.CLOSE),
    **dict.fromkeys(("-C", "--check"), Act.CHECK),
}
_MATCHES = frozenset(["tcp", "udp", "state", "conntrack", "multiport", "comment"])
_ALONE = frozenset(["--syn", "-w", "--wait", "-4", "-6", "--ipv4", "--ipv6", "-v", "--verbose", "-n", "--numeric"])
_PROTOCOLS = {"tcp": Protocol.TCP, "6": Protocol.TCP, "udp": Protocol.UDP, "17": Protocol.UDP}
_WITH_PORTS = frozenset({"", "all", "0", *_PROTOCOLS})
"""Protocols of rules without ports that accept packets to ports, too."""


@dataclass
class _IptablesRule:
    """A rule, as far as its command was read."""

    act: Act | None = None
    chain: str = ""
    is_numbered: bool = False
    source: str = ""
    destination: str = ""
    protocol: str = ""
    ports: list[str] = field(default_factory=list)
    has_match: bool = False
    """Whether a match with ports is named."""
    is_known: bool = True
    """Whether iptables knows the option of the ports, because the protocol or such a match is ahead of it."""
    replies: list[str] = field(default_factory=list)
    """The source ports of a rule for answers."""
    target: str = ""
    told: list[str] = field(default_factory=list)


def read(words: tuple[str, ...], services: ServiceNames) -> Effect | None:
    """The effect of a command line; None if another word may be a condition, or it is about something else.

    `-A INPUT -s %IP% -p tcp --dport N -j ACCEPT`, in any order, with the usual additions.
    """
    rule = _read(words[1:])
    if rule is None or rule.act is None or (rule.chain != "OUTPUT" and OF_OTHER_PACKETS.search(rule.chain)):
        return None
    family = 6 if words[0].startswith("ip6") else 4
    whole = Effect(rule.act, place=f"chain {rule.chain}", family=family, told=tuple(rule.told))
    if rule.is_numbered:
        return whole
    if rule.target != "ACCEPT":
        return None
    if rule.chain == "OUTPUT":
        return _of_replies(rule)
    if rule.destination or rule.replies or rule.source not in {*KNOCKER, ""}:
        return None
    if not rule.ports:
        return replace(whole, unclear=_without_ports(rule)) if rule.protocol in _WITH_PORTS else None
    if not (rule.protocol and rule.is_known):
        return replace(whole, unclear=Unclear.NO_PROTOCOL)
    if rule.protocol not in _PROTOCOLS:
        return None
    ports = ports_of(rule.ports, (_PROTOCOLS[rule.protocol],), services)
    if ports is None:
        return None
    if isinstance(ports, Unclear):
        return replace(whole, unclear=ports)
    return replace(whole, ports=ports, unclear=None if rule.source else Unclear.EVERY_ADDRESS)


def _without_ports(rule: _IptablesRule) -> Unclear:
    if not rule.source:
        return Unclear.EVERY_ADDRESS
    return Unclear.EVERY_PORT if rule.chain == "INPUT" else Unclear.ELSEWHERE


def _of_replies(rule: _IptablesRule) -> Effect | None:
    """A rule that lets answers to the knocker out. firewalld lets them out by itself."""
    if rule.destination not in KNOCKER or rule.source or rule.ports or not rule.replies:
        return None
    return Effect(Act.IGNORED, told=("Left out: the rule in chain OUTPUT. firewalld lets answers out by itself.",))


def _read(words: tuple[str, ...]) -> _IptablesRule | None:
    rule = _IptablesRule()
    left = deque(part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word]))
    while left:
        word = left.popleft()
        if word in _ALONE:
            if word in ("-w", "--wait") and left and left[0].isdigit():
                left.popleft()
        elif not left or not _take(rule, word, left.popleft(), left):
            return None
    return rule


def _take(rule: _IptablesRule, word: str, value: str, left: deque[str]) -> bool:
    """One option with its value; False if the rule is not understood."""
    if word in _ACTS and not rule.chain:
        rule.act, rule.chain = _ACTS[word], value
        if left and left[0].isdigit():
            left.popleft()  # where in the chain
            rule.is_numbered = rule.act is Act.CLOSE
        if value not in ("INPUT", "OUTPUT"):
            rule.told.append(f"The command's rule is in chain {value}.")
    elif word in ("-F", "--flush") and not rule.chain and value not in ("INPUT", "OUTPUT"):
        rule.act, rule.chain, rule.is_numbered = Act.CLOSE, value, True
    elif word in ("-s", "--source", "--src") and not rule.source:
        rule.source = value
    elif word in ("-d", "--destination", "--dst") and not rule.destination:
        rule.destination = value
    elif word in ("-p", "--protocol", "--proto") and not rule.protocol:
        rule.protocol = value.lower()
    elif word in ("--dport", "--destination-port", "--dports", "--destination-ports") and not rule.ports:
        rule.ports = value.split(",")
        rule.is_known = bool(rule.protocol) or rule.has_match
    elif word in ("--sport", "--source-port", "--sports", "--source-ports") and not rule.replies:
        rule.replies = value.split(",")
    elif word in ("-j", "--jump") and not rule.target:
        rule.target = value
    elif word in ("-i", "--in-interface"):
        rule.told.append(f"The command's rule is for packets on {value} only.")
    elif word == "--comment":
        rule.told.append(f"The command's comment: {value}")
    elif word in ("--state", "--ctstate"):
        return "NEW" in value.split(",")
    elif word in ("-m", "--match"):
        rule.has_match = rule.has_match or value in ("tcp", "udp", "multiport")
        return value in _MATCHES
    else:
        return (word, value) in (("-t", "filter"), ("--table", "filter"))
    return not value.startswith(("!", "-"))


def read_helper(words: tuple[str, ...], services: ServiceNames) -> Effect | None:
    """knockd's helper `knock_add -i|-a|-x -f %IP% -d PORT [-p PROTOCOL] [-c CHAIN] [-m COMMENT]`."""
    spelled = {"-i": "-I", "--insert": "-I", "-a": "-A", "--append": "-A", "-x": "-D", "--delete": "-D"}
    given = {"-f": "", "-d": "", "-p": "tcp", "-c": "INPUT", "-m": ""}
    long = {"--srcaddr": "-f", "--dstport": "-d", "--proto": "-p", "--chain": "-c", "--comment": "-m"}
    action = ""
    left = deque(words[1:])
    while left:
        word = left.popleft()
        option = long.get(word, word)
        if word in spelled:
            action = spelled[word]
        elif option in given and left:
            given[option] = left.popleft()
        else:
            return None
    if not action:
        return None
    comment = ("--comment", given["-m"]) if given["-m"] else ()
    rule = (action, given["-c"], "-s", given["-f"], "-p", given["-p"], "--dport", given["-d"], *comment)
    return read(("iptables", *rule, "-j", "ACCEPT"), services)


def read_ipset(words: tuple[str, ...], services: ServiceNames) -> Effect | None:
    """`ipset add SET %IP%[,tcp:PORT] [timeout SECONDS]`. Most sets have no port: rules that use the set name them."""
    acts = {"add": Act.OPEN, "-A": Act.OPEN, "del": Act.CLOSE, "-D": Act.CLOSE}
    plain = tuple(word for word in words[1:] if word not in ("-q", "-quiet", "-!", "-exist", "-o"))
    if len(plain) < 3 or plain[0] not in acts:
        return None
    verb, name, entry, *rest = plain
    seconds = seconds_of(rest[1]) if len(rest) == 2 and rest[0] == "timeout" else None
    if (rest and seconds is None) or DENYING.search(name):
        return None
    told = (f"The command's entry is in set {name}.",)
    whole = Effect(acts[verb], place=f"set {name}", family=4, seconds=seconds, told=told)
    address, comma, port = entry.partition(",")
    if address not in KNOCKER:
        return None
    if not comma:
        return replace(whole, unclear=Unclear.ELSEWHERE)
    protocol, colon, number = port.rpartition(":")
    if colon and protocol not in _PROTOCOLS:
        return None
    ports = ports_of([number], (_PROTOCOLS[protocol or "tcp"],), services)
    return replace(whole, ports=ports) if isinstance(ports, tuple) else None
