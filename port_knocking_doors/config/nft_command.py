"""Commands of nft (nft(8))."""

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

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
from port_knocking_doors.model import Port, Protocol

_FAMILIES = frozenset(["ip", "ip6", "inet"])
"""Families of tables for packets to this host."""
_OTHER_TABLES = frozenset(["nat", "mangle", "raw"])
_TOKEN = re.compile(r'"[^"]*"|[{},;]|[^\s{},;"]+')
_INTERFACE = frozenset({"iif", "iifname"})


def read(words: tuple[str, ...], services: ServiceNames) -> Effect | None:
    """`add rule TABLE CHAIN ip saddr %IP% tcp dport PORT accept`, `add element TABLE SET { %IP% … }`, and how they are
    deleted; None for anything else."""
    plain = [word for word in words[1:] if not re.fullmatch(r"-[a-zA-Z]+", word)]
    left = deque(token.strip('"') for word in plain for token in _tokens(word))
    if len(left) < 4:
        return None
    verb, kind = left.popleft(), left.popleft()
    family = left.popleft() if left[0] in _FAMILIES else "ip"
    if verb not in ("add", "insert", "create", "delete") or len(left) < 3:
        return None
    table, name = left.popleft(), left.popleft()
    if table.lower() in _OTHER_TABLES or OF_OTHER_PACKETS.search(name) or DENYING.search(name):
        return None
    act = Act.CLOSE if verb == "delete" else Act.OPEN
    place = f"{family} {table} {name}"
    if kind == "element":
        return _element(act, place, left, services)
    if kind != "rule":
        return None
    if left[0] in ("handle", "position", "index"):
        if act is Act.CLOSE:
            return Effect(act, place=f"chain {place}")
        if len(left) < 3:
            return None
        left.popleft()
        left.popleft()
    return _rule(act, place, left, services)


def _tokens(word: str) -> Iterator[str]:
    """The tokens of a word, which may be a whole command in quotes. A computed word is one."""
    if "$(" in word or "`" in word:
        yield word
    elif re.search(r"[\s{},;]", word):
        yield from _TOKEN.findall(word)
    else:
        yield word


def _element(act: Act, place: str, left: deque[str], services: ServiceNames) -> Effect | None:
    """An element of a set: the knocker's address, with a port where the set has both."""
    if left[0] != "{" or left.pop() != "}":
        return None
    left.popleft()
    element = " ".join(left)
    key, _, timeout = element.partition(" timeout ")
    key = re.sub(r" comment .*", "", key)
    seconds = seconds_of(timeout.split(" ")[0]) if timeout else None
    parts = [part.strip() for part in key.split(" . ")]
    if not KNOCKER & {*parts}:
        return None
    whole = f"set {place}"
    told = (f"The command's element is in set {place}.",)
    others = [part for part in parts if part not in KNOCKER]
    protocols = tuple(protocol for protocol in Protocol if protocol.value in others) or (Protocol.TCP,)
    ports = ports_of([part for part in others if part not in list(Protocol)], protocols, services) if others else None
    if not isinstance(ports, tuple):
        return Effect(act, (), whole, 4, seconds, Unclear.ELSEWHERE, told)
    return Effect(act, ports, whole, 4, seconds, told=told)


@dataclass
class _NftRule:
    source: str = ""
    family: int = 0
    ports: tuple[Port, ...] | Unclear | None = Unclear.EVERY_PORT
    protocols: tuple[Protocol, ...] = ()
    told: list[str] = field(default_factory=list)


def _rule(act: Act, place: str, left: deque[str], services: ServiceNames) -> Effect | None:
    rule = _NftRule()
    rule.told.append(f"The command's rule is in chain {place}.")
    is_accepting = False
    while left:
        word = left.popleft()
        if word == "accept":
            is_accepting = True
        elif word == "comment" and left:
            rule.told.append(f"The command's comment: {left.popleft()}")
        elif word == "counter":
            while len(left) > 1 and left[0] in ("packets", "bytes") and left[1].isdecimal():
                left.popleft()
                left.popleft()
        elif is_accepting or not _take(rule, word, left, services):
            return None
    if not is_accepting or rule.ports is None:
        return None
    ports = rule.ports if isinstance(rule.ports, tuple) else ()
    unclear = rule.ports if isinstance(rule.ports, Unclear) else None
    if not rule.source:
        unclear = Unclear.EVERY_ADDRESS
    return Effect(act, ports, f"chain {place}", rule.family, unclear=unclear, told=tuple(rule.told))


def _take(rule: _NftRule, word: str, left: deque[str], services: ServiceNames) -> bool:
    """One match of a rule; False if it is not understood, and so may narrow the rule."""
    if word == "meta" and left:
        word = left.popleft()
    if word == "log":
        rule.told.append("Left out: the rule's log. The log of this program has each door.")
        while len(left) > 1 and left[0] in ("prefix", "level", "group"):
            left.popleft()
            left.popleft()
        return True
    if not left:
        return False
    if word in _INTERFACE:
        rule.told.append(f"The command's rule is for packets on {left.popleft()} only.")
        return True
    if word in ("ip", "ip6") and len(left) > 1 and left[0] == "saddr" and not rule.source:
        left.popleft()
        rule.source, rule.family = left.popleft(), 6 if word == "ip6" else 4
        if rule.source == "{" and len(left) > 1 and left[1] == "}":
            rule.source = left.popleft()
            left.popleft()
        return rule.source in KNOCKER
    if word == "ct" and len(left) > 1 and left[0] == "state":
        left.popleft()
        return "new" in _values(left)
    if word in ("l4proto", "protocol"):
        named = _values(left)
        rule.protocols = tuple(protocol for protocol in Protocol if protocol.value in named)
        return len(rule.protocols) == len(named)
    if word in ("tcp", "udp", "th") and left[0] == "dport" and len(left) > 1:
        left.popleft()
        protocols = rule.protocols if word == "th" else (Protocol(word),)
        rule.ports = ports_of(_values(left), protocols, services)
        return bool(protocols)
    return False


def _values(left: deque[str]) -> list[str]:
    """The values that follow: one, several with commas between them, or a set in braces."""
    values: list[str] = []
    is_set = bool(left) and left[0] == "{"
    if is_set:
        left.popleft()
    while left:
        if left[0] == "}":
            left.popleft()
            break
        values += [value for value in left.popleft().split(",") if value]
        if left and left[0] == ",":
            left.popleft()
        elif not is_set:
            break
    return values
