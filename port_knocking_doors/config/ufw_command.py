"""Commands of ufw (ufw(8))."""

from collections import deque

from port_knocking_doors.config.firewall_effect import KNOCKER, Act, Effect, Unclear, ports_of
from port_knocking_doors.config.service_names import ServiceNames
from port_knocking_doors.model import Port, Protocol

_APPLICATIONS = {"openssh": (Port(22),), "nginx http": (Port(80),), "nginx https": (Port(443),)}
"""Profiles that Debian's and Ubuntu's packages bring."""
_EVERYWHERE = frozenset({"any", "0.0.0.0/0", "::/0"})


def read(words: tuple[str, ...], services: ServiceNames) -> Effect | None:
    """`[insert N] allow from %IP% to any port PORT [proto tcp]` and its `delete`; None for anything else."""
    left = deque(word for word in words[1:] if word != "--force")
    if [*left] == ["reload"]:
        return Effect(Act.IGNORED, told=("Left out: ufw reload. A door needs none.",))
    act = Act.OPEN
    if left and left[0] == "rule":
        left.popleft()
    if left and left[0] == "delete":
        act = Act.CLOSE
        left.popleft()
        if len(left) == 1 and left[0].isdecimal():
            return Effect(act, place="ufw")
    elif left and left[0] == "prepend":
        left.popleft()
    elif len(left) > 1 and left[0] == "insert" and left[1].isdecimal():
        left.popleft()
        left.popleft()
    if not left or left.popleft() != "allow":
        return None
    if len(left) == 1:
        return Effect(act, _simple(left[0], services), "ufw", unclear=Unclear.EVERY_ADDRESS)
    return _full(act, left, services)


def _simple(text: str, services: ServiceNames) -> tuple[Port, ...]:
    """The ports of `allow PORT[/PROTOCOL]`, which is for every address."""
    number, _, name = text.partition("/")
    if name and name not in list(Protocol):
        return ()
    ports = ports_of(number.split(","), (Protocol(name),) if name else tuple(Protocol), services)
    return ports if isinstance(ports, tuple) else ()


def _full(act: Act, left: deque[str], services: ServiceNames) -> Effect | None:
    given: dict[str, str] = {}
    told: list[str] = []
    target = ""
    while left:
        word = left.popleft()
        if word in ("in", "log", "log-all"):
            continue
        if word not in ("from", "to", "port", "app", "proto", "on", "comment") or not left:
            return None
        value = left.popleft()
        if word == "port" and target != "to":
            return None  # the source's
        if word == "on":
            told.append(f"The command's rule is for packets on {value} only.")
        elif word == "comment":
            told.append(f"The command's comment: {value}")
        elif word in given:
            return None
        given[word] = value
        target = word if word in ("from", "to") else target
    source = given.get("from", "any")
    if given.get("to", "any") not in _EVERYWHERE or source not in KNOCKER | _EVERYWHERE:
        return None
    ports = _ports(given, services)
    if ports is None:
        return None
    unclear = ports if isinstance(ports, Unclear) else None
    if source not in KNOCKER:
        unclear = Unclear.EVERY_ADDRESS
    return Effect(act, ports if isinstance(ports, tuple) else (), "ufw", unclear=unclear, told=tuple(told))


def _ports(given: dict[str, str], services: ServiceNames) -> tuple[Port, ...] | Unclear | None:
    protocol = given.get("proto", "any")
    if protocol not in ("any", *Protocol):
        return None
    if "app" in given:
        return _APPLICATIONS.get(given["app"].lower())
    if "port" not in given:
        return Unclear.EVERY_PORT
    protocols = tuple(Protocol) if protocol == "any" else (Protocol(protocol),)
    ports = ports_of(given["port"].split(","), protocols, services)
    return ports if ports is not None else _APPLICATIONS.get(given["port"].lower())
