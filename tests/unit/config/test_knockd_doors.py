"""Which of knockd's commands are doors, and what a command that is none may leave open behind a closer."""

import pytest

from port_knocking_doors.config import knockd_doors
from port_knocking_doors.config.service_names import ServiceNames
from port_knocking_doors.model import CommandOpening

SERVICES = ServiceNames()
OPENS, CLOSES = (f"iptables -{verb} INPUT -s %IP% -p tcp --dport 22 -j ACCEPT" for verb in "AD")


def test_other_stop_command_for_ipv6_alone_makes_no_door() -> None:
    assert knockd_doors.door_of(CommandOpening(OPENS, CLOSES, 10), SERVICES) is not None
    assert knockd_doors.door_of(CommandOpening(OPENS, CLOSES, 10, stop6=CLOSES), SERVICES) is not None
    assert knockd_doors.door_of(CommandOpening(OPENS, CLOSES, 10, stop6="logger closed"), SERVICES) is None


WEB = OPENS.replace("22", "80")
OTHERS = {
    "the port": (CommandOpening(OPENS), True),
    "another port": (CommandOpening(WEB), False),
    "the port for IPv6": (CommandOpening(WEB, start6=OPENS), True),
    "nothing": (CommandOpening("logger 22"), False),
    "perhaps the port": (CommandOpening(f"test -e /x && {OPENS}"), True),
    "perhaps a port with these digits": (CommandOpening(f"test -e /x && {OPENS.replace('22', '2222')}"), False),
    "perhaps the port, for IPv6": (CommandOpening(f"test -e /x && {WEB}", start6=f"test -e /x && {OPENS}"), True),
}


@pytest.mark.parametrize(("command", "is_left"), OTHERS.values(), ids=OTHERS)
def test_command_leaves_open_what_a_closer_is_for(command: CommandOpening, is_left: bool) -> None:
    closer = knockd_doors.closer_of(CommandOpening(CLOSES), SERVICES)
    assert closer is not None
    assert knockd_doors.leaves_open(command, closer, SERVICES) is is_left
