"""knockd's start and stop commands as doors: the ports that they open for the knocker, and for how long."""

import re
from dataclasses import dataclass

from port_knocking_doors.config import firewall_command, readers
from port_knocking_doors.config.firewall_command import Reading
from port_knocking_doors.config.firewall_effect import PORTS_MAX, Effect, Unclear
from port_knocking_doors.config.service_names import ServiceNames
from port_knocking_doors.model import CommandOpening, Port, Protocol

FOR_EVER = 3600.0
"""Seconds of a door whose command opens the ports for ever."""

_VERBS = re.compile(r"open|close|start|stop|enable|disable|unlock|lock|allow|deny|on|off|up|down|[\W_]")


@dataclass(frozen=True)
class KnockdDoor:
    """The ports that commands open, and close again."""

    ports: tuple[Port, ...]
    seconds: float
    command: CommandOpening | None
    """What runs besides."""
    notes: tuple[str, ...]
    readings: tuple[Reading, ...]
    """What the start command does, for each address family that has its own."""


@dataclass(frozen=True)
class _Way:
    """The start and the stop command for one address family."""

    opening: Reading
    seconds: float
    is_for_ever: bool
    rest: tuple[str, str]
    """What else runs at the start and at the end."""
    told: tuple[str, ...]


def door_of(command: CommandOpening, services: ServiceNames) -> KnockdDoor | None:
    """The door, if the commands open ports for the knocker, the same ones for both address families, and are
    understood."""
    lines = [(command.start, command.stop)]
    if command.start6:
        lines.append((command.start6, command.stop if command.stop6 is None else command.stop6))
    elif command.start6 is None and command.stop6 not in (None, command.stop):
        return None
    ways = [_way(start, stop, command.delay, services) for start, stop in lines]
    known = [way for way in ways if way is not None]
    if len(known) < len(ways) or len({(way.opening.ports, way.seconds, way.rest) for way in known}) > 1:
        return None
    way = known[0]
    if not readers.seconds.low <= way.seconds <= readers.seconds.high or len(way.opening.ports) > PORTS_MAX:
        return None
    notes = [sentence for way in known for sentence in way.told]
    if way.is_for_ever:
        notes.append(
            f"The command opens for ever. Here the door closes after {way.seconds:g} s, unless the sequence is knocked "
            "again: change duration."
        )
    if not command.start6 and (family := way.opening.family):
        other = 10 - family  # 4 or 6
        notes.append(
            f"The command is for IPv{family} addresses only; here the door opens for IPv{other} addresses, too."
        )
    notes.append(f"Instead of: {command.start}")
    return KnockdDoor(
        way.opening.ports,
        way.seconds,
        _besides(way),
        tuple(dict.fromkeys(notes)),
        tuple(one.opening for one in known),
    )


def _way(start: str, stop: str, delay: float, services: ServiceNames) -> _Way | None:
    opening = firewall_command.read(start, services)
    if opening is None or not opening.opened or opening.closed or any(one.unclear for one in opening.opened):
        return None
    seconds = opening.seconds
    if not stop:
        return _Way(opening, seconds or FOR_EVER, seconds is None, (opening.rest, ""), tuple(opening.told))
    closing = firewall_command.read(stop, services)
    if closing is None or not closing.undoes(opening):
        return None
    seconds = delay if seconds is None else min(delay, seconds)
    return _Way(opening, seconds, False, (opening.rest, closing.rest), (*opening.told, *closing.told))


def _besides(way: _Way) -> CommandOpening | None:
    start, stop = way.rest
    if stop:
        return CommandOpening(start or "true", stop, way.seconds)
    return CommandOpening(start) if start else None


def closer_of(command: CommandOpening, services: ServiceNames) -> Reading | None:
    """What commands close in the firewall, if they do nothing else there. A command that runs later is in its rest."""
    lines = dict.fromkeys((command.start, command.start6 or command.start))
    readings = [firewall_command.read(line, services) for line in lines]
    if any(reading is None or reading.opened or not reading.closed for reading in readings):
        return None
    closer = readings[0]
    later = firewall_command.read(command.stop, services) if command.stop else None
    if closer is None or (later is not None and later.opened):
        return None
    if command.stop:
        rest = command.stop if later is None else later.rest
        closer.rest = "; ".join(filter(None, [closer.rest, rest]))
    return closer


def notes_on(command: CommandOpening, services: ServiceNames) -> list[str]:
    """Why commands that open something in the firewall are no door, and what to write for one."""
    reading = firewall_command.read(command.start, services)
    if reading is None or not reading.opened:
        return []
    unclear = next((one for one in reading.opened if one.unclear), None)
    if unclear is not None:
        return _advice(unclear)
    if command.stop and not readers.seconds.low <= command.delay <= readers.seconds.high:
        return [f"The stop command runs after {command.delay:g} s, expected {readers.seconds.expects}: no door."]
    return ["The stop command does not undo the start command, or not all of it is understood: no door."]


def _advice(effect: Effect) -> list[str]:
    assert effect.unclear is not None
    if effect.unclear is Unclear.TOO_MANY:
        return [effect.unclear.value]
    ports = ", ".join(str(port.number) if port.protocol is Protocol.TCP else f'"{port}"' for port in effect.ports)
    return [effect.unclear.value, f"open = [{ports or 22}]"]


def leaves_open(command: CommandOpening, closer: Reading, services: ServiceNames) -> bool:
    """Whether a command that is no door opens what the closer closes, or may do so as it names the same port."""
    for line in dict.fromkeys(filter(None, (command.start, command.start6))):
        reading = firewall_command.read(line, services)
        if reading is not None:
            if any(one.undoes(theirs) for one in closer.closed for theirs in reading.opened):
                return True
        elif firewall_command.names_firewall(line):
            numbers = {port.number for one in closer.closed for port in one.ports}
            if any(re.search(rf"(?<!\d){number}(?!\d)", line) for number in numbers):
                return True
    return False


def stem(name: str) -> str:
    """The name of a door without what says that it opens or closes."""
    return _VERBS.sub("", name.lower())
